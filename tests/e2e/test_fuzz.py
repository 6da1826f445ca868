"""A short run of the server fuzzer against the real service; `make fuzz` runs the long one."""

import json

import pytest

from benchmarks.fuzz_bodies import MAX_REQUEST_BYTES, Request, good_requests, make_bad_request
from benchmarks.fuzz_server import Answer, check_answer, check_growth, check_same, fuzz, is_form_failure

JSON = "application/json"
PREDICTION = {"prediction": "ship", "class_index": 8, "confidence": 0.5}
REFUSAL = {"error": {"code": "wrong_length", "message": "too short"}}
# What TorchServe 0.12.0 answers by itself to a form that it cannot read.
FORM_FAILURE = {"code": 500, "type": "ErrorDataDecoderException", "message": "empty name"}


def answer(status: int, document: object, content_type: str = JSON) -> Answer:
    return Answer(status, content_type, json.dumps(document).encode())


def test_no_mutated_body_breaks_the_service(torchserve):
    report = fuzz(torchserve.url, torchserve.management_url, 1500, seed=1, limit_s=60)
    assert [(finding.what, finding.request, finding.answer) for finding in report.findings] == []
    assert report.failures == []
    assert report.sent == 1500


def test_a_seed_names_its_requests():
    good = good_requests()
    first, again, other = ([make_bad_request(good, seed, number) for number in range(50)] for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    "good",
    [
        pytest.param(answer(200, PREDICTION), id="one prediction"),
        pytest.param(answer(200, {"predictions": [PREDICTION, PREDICTION]}), id="several"),
        pytest.param(answer(422, REFUSAL), id="rejection"),
    ],
)
def test_an_answer_of_the_contract_passes(good):
    assert check_answer(good, 100) is None


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(answer(500, {"error": {"code": "internal", "message": "failed"}}), id="500"),
        pytest.param(answer(503, REFUSAL), id="503"),
        pytest.param(answer(302, REFUSAL), id="302"),
        pytest.param(Answer(200, JSON, b"<html>"), id="not JSON"),
        pytest.param(Answer(422, JSON, b""), id="nothing"),
        pytest.param(answer(200, PREDICTION, "text/plain"), id="another content type"),
        pytest.param(answer(422, REFUSAL, ""), id="no content type"),
        pytest.param(answer(200, REFUSAL), id="200 with a rejection"),
        pytest.param(answer(200, {"predictions": []}), id="200 without predictions"),
        pytest.param(answer(200, {"outputs": [{}]}), id="outputs that hold nothing"),
        pytest.param(answer(422, {"error": "too short"}), id="an error without code"),
        pytest.param(answer(400, REFUSAL), id="a code with another status than its own"),
        pytest.param(answer(422, {"error": {"code": "oops", "message": "x"}}), id="a code that is not in the contract"),
        pytest.param(answer(404, {"code": 404, "type": "NotFound", "message": "x"}), id="TorchServe's own form"),
        pytest.param(Answer(413, "", b""), id="413 without a body to a small request"),
    ],
)
def test_an_answer_that_breaks_the_contract_is_found(bad):
    assert check_answer(bad, 100) is not None


def test_the_network_layer_may_refuse_what_is_too_large():
    assert check_answer(Answer(413, "", b""), MAX_REQUEST_BYTES + 1) is None


@pytest.mark.parametrize(
    ("content_type", "failed", "told"),
    [
        pytest.param("multipart/form-data; boundary=x", answer(500, FORM_FAILURE), True, id="a form"),
        pytest.param(
            "multipart/form-data",
            answer(500, {"code": 500, "type": "ArrayIndexOutOfBoundsException"}),
            True,
            id="a form, tersely",
        ),
        pytest.param(JSON, answer(500, FORM_FAILURE), False, id="no form"),
        pytest.param(
            "multipart/form-data",
            answer(500, FORM_FAILURE | {"type": "InternalServerException"}),
            False,
            id="a worker that died",
        ),
        pytest.param("multipart/form-data", answer(500, {"error": {"code": "internal"}}), False, id="the handler"),
        pytest.param("multipart/form-data", answer(500, FORM_FAILURE | {"type": "Error"}), False, id="another failure"),
        pytest.param("multipart/form-data", Answer(500, JSON, b"?"), False, id="not JSON"),
    ],
)
def test_only_torchserves_failure_to_read_a_form_is_told_apart(content_type, failed, told):
    assert is_form_failure(failed, Request("multipart", b"", content_type)) is told


def test_a_good_request_that_is_answered_otherwise_is_found():
    expected = answer(200, PREDICTION)
    assert check_same(answer(200, PREDICTION | {"confidence": 0.500001}), expected) is None
    assert check_same(answer(200, PREDICTION | {"confidence": 0.51}), expected) is not None
    assert check_same(answer(200, PREDICTION | {"prediction": "cat"}), expected) is not None
    assert check_same(answer(422, REFUSAL), expected) is not None


def test_growth_over_the_last_half_is_found_and_single_peaks_are_not():
    steady = [300] * 100
    assert check_growth(1, steady) is None
    assert check_growth(1, [100] * 20 + [300] * 80) is None  # it grew, but in the first half
    assert check_growth(1, [*steady[:95], 900, *steady[96:]]) is None
    assert check_growth(1, [*steady, *range(300, 340)]) is not None
    assert check_growth(1, [300]) is not None  # says nothing
