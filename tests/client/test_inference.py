import io

import numpy as np
import orjson
import pytest
import requests
from PIL import Image

from cifar.client import (
    Guess,
    InferenceClient,
    ModelNotFound,
    Prediction,
    RequestRejected,
    ServerError,
    ServerUnreachable,
    UnexpectedAnswer,
)
from cifar.client.inference import find_max_value, split_images
from cifar.common.urls import check_url

CAT = {"prediction": "cat", "class_index": 3, "confidence": 0.9}
TORCHSERVE_LIMIT_BYTES = 6_553_500


@pytest.fixture
def client(server):
    with InferenceClient(server.url, timeout_s=5) as opened:
        yield opened


# What is sent


def test_predictions_come_back_in_the_order_sent(client, images):
    answer = client.predict(images[[7, 2, 9]])
    assert [p.class_index for p in answer.predictions] == [7, 2, 9]
    assert answer.predictions[0] == Prediction("horse", 7, 0.75)


def test_version_that_answered_is_told(client, images):
    assert client.predict(images).model_version == "1.0"


def test_one_image_without_a_batch_axis_is_one_prediction(client, images):
    assert [p.label for p in client.predict(images[4]).predictions] == ["deer"]


def test_bytes_of_an_array_go_raw(client, server, images):
    client.predict(images)
    (request,) = server.requests
    assert request.content_type == "application/octet-stream"
    assert request.body == images.tobytes()


def test_array_in_another_memory_order_is_sent_in_row_order(client, server, images):
    client.predict(np.asfortranarray(images))
    assert server.requests[0].body == images.tobytes()


def test_more_than_256_raw_images_go_in_several_requests(client, server, images):
    many = np.tile(images, (52, 1, 1, 1))  # 520
    answer = client.predict(many)
    assert [len(request.body) // 3072 for request in server.requests] == [256, 256, 8]
    assert [p.class_index for p in answer.predictions] == list(range(10)) * 52


def test_requests_of_floats_stay_under_the_servers_limit(client, server):
    longest = np.float64(-1.17549435e-38)  # no float32 needs more characters
    client.predict(np.full((65, 32, 32, 3), longest))
    assert len(server.requests) == 2
    assert max(len(request.body) for request in server.requests) < TORCHSERVE_LIMIT_BYTES


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_floats_of_any_width_are_understood(client, images, dtype):
    answer = client.predict(images.astype(dtype))
    assert [p.class_index for p in answer.predictions] == list(range(10))


def test_floats_in_0_to_1_are_sent_with_their_scale(client, server, images):
    answer = client.predict(images / 255)
    assert orjson.loads(server.requests[0].body)["max_value"] == 1
    assert [p.class_index for p in answer.predictions] == list(range(10))


def test_dark_piece_of_a_bright_array_keeps_the_arrays_scale(client, server):
    images = np.full((65, 32, 32, 3), 0.5)
    images[64] = 200
    client.predict(images)
    assert [orjson.loads(request.body)["max_value"] for request in server.requests] == [255, 255]


@pytest.mark.parametrize(
    ("numbers", "max_value"),
    [
        ([0.0, 0.5, 1.0], 1),
        ([0.0, 1.0], 255),
        ([0.5, 2.0], 255),
        ([-0.5, 0.5], 255),
    ],
    ids=["fractions", "whole", "above-1", "negative"],
)
def test_scale_is_told_by_the_servers_rule(numbers, max_value):
    assert find_max_value(np.array(numbers)) == max_value


@pytest.mark.parametrize(("picture_format", "content_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_picture_goes_as_it_is_with_its_type(client, server, images, picture_format, content_type):
    file = io.BytesIO()
    Image.fromarray(images[3]).save(file, picture_format)
    client.predict(file.getvalue())
    (request,) = server.requests
    assert (request.content_type, request.body) == (content_type, file.getvalue())


def test_version_stands_in_the_path(client, server, images):
    client.predict(images, version="1.1")
    client.predict(images)
    client.predict(images, version="a/b")
    paths = [request.path for request in server.requests]
    assert paths == ["/predictions/cifar/1.1", "/predictions/cifar", "/predictions/cifar/a%2Fb"]


def test_top_k_brings_as_many_guesses(client, server, images):
    (prediction,) = client.predict(images[8], top_k=2).predictions
    assert server.requests[0].top_k == "2"
    assert prediction.top_k == (Guess("ship", 0.75), Guess("truck", 0.25))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 32, 32), np.uint8),
        np.zeros((0, 32, 32, 3), np.uint8),
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 3), np.int64),
    ],
    ids=["channels-first", "empty", "grey", "int64"],
)
def test_wrong_array_is_rejected_before_anything_is_sent(client, server, array):
    with pytest.raises(ValueError, match="expected"):
        client.predict(array)
    assert server.requests == []


def test_pieces_are_views_not_copies():
    images = np.zeros((300, 32, 32, 3), np.uint8)
    assert all(np.shares_memory(piece, images) for piece in split_images(images))


def test_proxy_of_the_environment_is_not_asked_for_this_machine(server, images, monkeypatch, closed_url):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, closed_url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(requests.ConnectionError):  # what would happen
        requests.post(server.url, data=b"", timeout=5)
    with InferenceClient(server.url) as client:
        assert len(client.predict(images).predictions) == 10


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://host", "http://", "http://host:port", "http://host:99999"])
def test_address_that_is_no_url_is_rejected(url):
    with pytest.raises(ValueError):
        InferenceClient(url)


def test_closing_slash_of_a_url_is_dropped():
    assert check_url("http://host:1/base/") == "http://host:1/base"


# What comes back when something is wrong


def test_closed_port_names_the_url_and_the_way_out(closed_url, images):
    with InferenceClient(closed_url) as client, pytest.raises(ServerUnreachable) as caught:
        client.predict(images)
    assert closed_url in str(caught.value)
    assert "make up" in str(caught.value)
    assert caught.value.reason == "nothing listens there"


def test_hanging_server_ends_in_a_timeout(server, images):
    server.hang()
    with InferenceClient(server.url, timeout_s=0.2) as client, pytest.raises(ServerUnreachable, match=r"0\.2 s"):
        client.predict(images)


def test_connection_closed_without_an_answer_is_unreachable(client, server, images):
    server.close_without_answer()
    with pytest.raises(ServerUnreachable, match="closed the connection"):
        client.predict(images)


def test_connection_closed_in_mid_answer_is_unreachable(client, server, images):
    server.hang_up_in_mid_answer()
    with pytest.raises(ServerUnreachable, match="closed the connection"):
        client.predict(images)


def test_server_error_tells_status_and_what_the_server_said(client, server, images):
    message = 'Model "cifar" has no worker to serve inference request.'
    server.answer_json(503, {"code": 503, "type": "ServiceUnavailableException", "message": message})
    with pytest.raises(ServerError, match="its queue is full, or the version has no worker") as caught:
        client.predict(images)
    assert caught.value.status == 503
    assert "logs/" in str(caught.value)


def test_long_page_of_a_failing_server_is_cut_and_put_on_one_line(client, server, images):
    server.answer(500, b"<h1>Oh\n\n no</h1>\x1b[31m" + b"x" * 10_000)
    with pytest.raises(ServerError) as caught:
        client.predict(images)
    assert caught.value.excerpt.startswith("<h1>Oh no</h1>")
    assert "\x1b" not in caught.value.excerpt
    assert len(caught.value.excerpt) == 200


def test_rejection_carries_the_contracts_code_and_message(client, server, images):
    server.answer_json(400, {"error": {"code": "wrong_length", "message": "3071 bytes came, 3072 were expected"}})
    with pytest.raises(RequestRejected) as caught:
        client.predict(images)
    error = caught.value
    assert (error.status, error.code, error.message) == (
        400,
        "wrong_length",
        "3071 bytes came, 3072 were expected",
    )


def test_unknown_version_is_named(client, server, images):
    message = "Model version: 9.9 does not exist for model: cifar"
    server.answer_json(404, {"code": 404, "type": "ModelVersionNotFoundException", "message": message})
    with pytest.raises(ModelNotFound, match=r"no version '9\.9' of the model 'cifar'"):
        client.predict(images, version="9.9")


def test_unknown_model_is_told_without_a_version(client, server, images):
    server.answer_json(404, {"code": 404, "type": "ModelNotFoundException", "message": "Model not found: cifar"})
    with pytest.raises(ModelNotFound, match="no model 'cifar'") as caught:
        client.predict(images)
    assert "version" not in str(caught.value)


def test_other_rejection_of_torchserve_keeps_its_words(client, server, images):
    server.answer_json(
        400, {"code": 400, "type": "BadRequestException", "message": "Parameter model_name is required."}
    )
    with pytest.raises(RequestRejected, match="model_name is required") as caught:
        client.predict(images)
    assert caught.value.code == "BadRequestException"


def test_request_too_large_for_the_network_layer_tells_its_size(client, server, images):
    server.answer(413, b"")
    with pytest.raises(RequestRejected, match="30,720 bytes"):
        client.predict(images)


@pytest.mark.parametrize("status", [200, 404], ids=["as-success", "as-rejection"])
def test_page_of_another_program_is_unexpected(client, server, images, status):
    server.answer(status, b"<html>It works!</html>", Content_Type="text/html")
    with pytest.raises(UnexpectedAnswer, match="It works!"):
        client.predict(images)


def test_redirection_is_told_not_followed(client, server, images):
    server.answer(302, b"", Location="https://elsewhere.example/")
    with pytest.raises(UnexpectedAnswer, match=r"302.*elsewhere\.example"):
        client.predict(images)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "document",
    [
        None,
        3,
        "cat",
        [CAT],
        {},
        {"predictions": None},
        {"predictions": [["cat", 0.9]]},
        {**CAT, "prediction": 3},
        {**CAT, "confidence": "high"},
        {**CAT, "top_k": [{"label": "cat"}]},
        {"predictions": [CAT, CAT]},
    ],
    ids=lambda document: orjson.dumps(document).decode(),
)
def test_json_of_another_shape_is_unexpected(client, server, images, document):
    server.answer_json(200, document)
    with pytest.raises(UnexpectedAnswer):
        client.predict(images[0])


def test_good_answer_without_a_version_header_is_accepted(client, server, images):
    server.answer_json(200, CAT)
    answer = client.predict(images[0])
    assert answer.predictions == (Prediction("cat", 3, 0.9),)
    assert answer.model_version is None


def test_versions_of_a_deployment_in_progress_are_all_told(client, server):
    def switch_versions(request):
        reply = red_corner(request)
        reply.headers["X-Model-Version"] = "1.0" if len(server.requests) == 1 else "1.1"
        return reply

    red_corner, server.reply = server.reply, switch_versions
    assert client.predict(np.zeros((300, 32, 32, 3), np.uint8)).model_version == "1.0, 1.1"
