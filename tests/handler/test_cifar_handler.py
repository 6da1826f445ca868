"""The handler with TorchServe's own context and a network whose answers are known by construction."""

import ast
import hashlib
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch

import cifar_handler
from cifar_handler import CifarHandler
from decoding import decode_request
from tests.handler.samples import npy_of, png_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # importing ts leaves its version file to the garbage collector
    from ts.context import Context, RequestProcessor

HANDLER_DIR = Path(cifar_handler.__file__).parent
LABELS = list(json.loads((HANDLER_DIR / "index_to_name.json").read_text()).values())
RAW = {"Content-Type": "application/octet-stream"}
BATCH_SIZE = 4
METADATA = {
    "class_names": LABELS,
    "git_commit": "abc",
    "data_digest": "def",
    "mlflow_run": None,
    "weights_digest": "0123456789abcdef" * 4,
    "accuracy": 0.81,
}


class FirstPixelNetwork(torch.nn.Module):
    """Answers the class whose index is the red of the first pixel, with probability 0.82; the others get 0.02."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[1:] == (32, 32, 3)
        index = images[:, 0, 0, 0].to(torch.int64).clamp(0, 9)
        return torch.nn.functional.one_hot(index, 10).to(torch.float32) * 0.8 + 0.02


class Scaling(torch.nn.Module):
    """Gives the layers float32 in 0–1, as the trained network does inside."""

    def __init__(self, layers: torch.nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, images: torch.Tensor) -> Any:
        return self.layers(images.to(torch.float32) / 255)


def image_of(index: int) -> np.ndarray:
    image = np.full((32, 32, 3), 200, dtype=np.uint8)
    image[0, 0, 0] = index
    return image


def context_for(model_dir: Path, config: dict[str, Any] | None = None) -> Context:
    manifest = {"model": {"modelName": "cifar", "modelVersion": "1.2", "serializedFile": "model.pt"}}
    return Context("cifar", str(model_dir), manifest, BATCH_SIZE, None, "0.12.0", model_yaml_config=config or {})


def save_network(model_dir: Path, metadata: dict[str, Any]) -> Path:
    script = torch.jit.script(FirstPixelNetwork())
    torch.jit.save(script, str(model_dir / "model.pt"), _extra_files={"metadata.json": json.dumps(metadata)})
    (model_dir / "index_to_name.json").write_bytes((HANDLER_DIR / "index_to_name.json").read_bytes())
    return model_dir


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return save_network(tmp_path_factory.mktemp("model"), METADATA)


@pytest.fixture
def context(model_dir):
    return context_for(model_dir)


@pytest.fixture
def handler(context):
    loaded = CifarHandler()
    loaded.initialize(context)
    return loaded


def ask(
    handler: CifarHandler, context: Context, rows: list[dict[str, Any]], headers: dict[str, Any] | None = None
) -> list[tuple[int, Any]]:
    """Hand a batch over as TorchServe does; status and parsed body of each answer."""
    context.request_processor = [RequestProcessor(dict(RAW if headers is None else headers)) for _ in rows]
    answers = handler.handle(rows, context)
    assert all(isinstance(answer, bytes) for answer in answers)
    return [(context.get_response_status(index)[0], orjson.loads(answer)) for index, answer in enumerate(answers)]


def test_module_holds_the_one_class_that_torchserve_wants():
    tree = ast.parse((HANDLER_DIR / "cifar_handler.py").read_text())
    assert [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)] == ["CifarHandler"]


@pytest.mark.parametrize(
    "module",
    [
        "bad_input",
        "batching",
        "body_headers",
        "decoding",
        "embedded_images",
        "file_signatures",
        "forms",
        "image_files",
        "inference_protocol",
        "json_body",
        "npy",
        "number_bytes",
        "orientation",
        "pictures",
        "pixels",
        "request_options",
        "tensors",
    ],
)
def test_decoding_imports_neither_torch_nor_torchserve(module):
    tree = ast.parse((HANDLER_DIR / f"{module}.py").read_text())
    imports = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    imports += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in imports}.isdisjoint({"torch", "ts", "orjson"})


def test_class_names_are_those_of_cifar_10():
    assert LABELS == ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def test_one_image_gets_one_answer(handler, context):
    [(status, answer)] = ask(handler, context, [{"body": bytearray(image_of(3).tobytes())}])
    assert status == 200
    assert answer == {"prediction": "cat", "class_index": 3, "confidence": pytest.approx(0.82)}


def test_answers_come_in_the_order_of_the_requests(handler, context):
    order = [9, 0, 5, 5, 2, 7, 1]
    answers = ask(handler, context, [{"body": image_of(index).tobytes()} for index in order])
    assert [answer["class_index"] for _, answer in answers] == order


def test_a_bad_request_leaves_the_others_of_its_batch_alone(handler, context):
    good = [{"body": image_of(index).tobytes()} for index in (1, 2)]
    (first, bad, last) = ask(handler, context, [good[0], {"body": b"short"}, good[1]])
    assert (first[0], first[1]["prediction"]) == (200, "automobile")
    assert (last[0], last[1]["prediction"]) == (200, "bird")
    assert (bad[0], bad[1]["error"]["code"]) == (422, "wrong_length")
    assert context.get_response_status(1) == (422, "Unprocessable Entity")


def test_a_batch_of_bad_requests_only_is_answered(handler, context):
    assert [status for status, _ in ask(handler, context, [{"body": b""}, {}])] == [400, 400]


def test_every_answer_says_its_type_and_the_models_version_and_digest(handler, context):
    ask(handler, context, [{"body": image_of(0).tobytes()}, {"body": b"short"}])
    for index in (0, 1):
        assert context.get_response_headers(index) == {
            "content-type": "application/json",
            "X-Model-Version": "1.2",
            "X-Model-Digest": "0123456789ab",
        }


def test_without_a_recorded_digest_the_header_has_the_files_own(tmp_path):
    handler = CifarHandler()
    handler.initialize(context_for(save_network(tmp_path, {})))
    assert handler.digest == hashlib.sha256((tmp_path / "model.pt").read_bytes()).hexdigest()[:12]


def test_requests_of_many_images_get_their_own_predictions_back(handler, context):
    many = np.stack([image_of(index) for index in range(10)])  # more than two slices of the batch size
    answers = ask(handler, context, [{"body": image_of(9).tobytes()}, {"body": many.tobytes()}])
    assert answers[0][1]["class_index"] == 9
    assert [prediction["class_index"] for prediction in answers[1][1]["predictions"]] == list(range(10))


def test_the_network_never_sees_more_than_the_batch_size(handler, context):
    sizes: list[int] = []
    network = handler.network

    def counting(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        probabilities: torch.Tensor = network(images)
        return probabilities

    handler.network = counting
    ask(handler, context, [{"body": image_of(1).tobytes() * 6}, {"body": image_of(1).tobytes() * 3}])
    assert sizes == [4, 4, 1]


def test_answers_return_to_their_owners_from_requests_of_very_different_sizes(handler, context):
    order = np.random.default_rng(5).integers(0, 10, 275)
    images = np.stack([image_of(index) for index in order])
    sizes = [1, 256, None, 1, None, 17]
    rows, expected, start = [], [], 0
    for size in sizes:
        if size is None:
            rows.append({"body": bytearray(b"bad")})
            continue
        rows.append({"body": bytearray(images[start : start + size].tobytes())})
        expected.append(order[start : start + size].tolist())
        start += size
    answers = ask(handler, context, rows)
    assert [status for status, _ in answers] == [200, 200, 422, 200, 422, 200]
    good = [answer.get("predictions", [answer]) for status, answer in answers if status == 200]
    assert [[prediction["class_index"] for prediction in answer] for answer in good] == expected


def test_a_request_in_floats_changes_no_answer_of_whole_ones_beside_it(model_dir, context):
    torch.manual_seed(3)
    layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10), torch.nn.Softmax(1))
    handler = CifarHandler()
    handler.initialize(context)
    network: Any = Scaling(layers)
    handler.network = network
    noise = np.random.default_rng(2).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    whole = [{"body": bytearray(noise[:2].tobytes())}, {"body": bytearray(noise[2:].tobytes())}]
    floats = {"body": bytearray(npy_of(noise.astype(np.float32) / 255))}
    alone = [answer for row in whole for _, answer in ask(handler, context, [row], {})]
    first, _, second = (answer for _, answer in ask(handler, context, [whole[0], floats, whole[1]], {}))
    for answer, expected in zip((first, second), alone, strict=True):
        for prediction, other in zip(answer["predictions"], expected["predictions"], strict=True):
            assert prediction["prediction"] == other["prediction"]
            assert prediction["confidence"] == pytest.approx(other["confidence"], abs=1e-6)


def test_scaled_and_whole_numbers_may_share_a_batch(handler, context):
    scaled = {"images": [(image_of(4) / 255).tolist()], "top_k": 1}
    whole = {"image": image_of(6).tolist()}
    answers = ask(handler, context, [{"body": scaled}, {"body": whole}], {"content-type": "application/json"})
    # 4 / 255 * 255 may come out a hair below 4: the class is told by the float's whole part.
    assert answers[0][1]["max_value"] == 1
    assert answers[0][1]["predictions"][0]["prediction"] == "deer"
    assert "max_value" not in answers[1][1]
    assert answers[1][1]["prediction"] == "frog"


def test_top_k_is_sorted_and_equal_ones_keep_the_order_of_classes(handler, context):
    [(_, answer)] = ask(handler, context, [{"body": {"image": image_of(8).tolist(), "top_k": 3}}], {})
    assert [entry["label"] for entry in answer["top_k"]] == ["ship", "airplane", "automobile"]
    assert answer["top_k"][0]["confidence"] == answer["confidence"]


def test_query_parameters_arrive_as_further_fields_of_the_row(handler, context):
    row = {"top_k": bytearray(b"2"), "model_name": bytearray(b"cifar"), "body": image_of(8).tobytes()}
    [(status, answer)] = ask(handler, context, [row], {**RAW, "top_k": {"content-type": ""}})
    assert (status, len(answer["top_k"])) == (200, 2)


@pytest.mark.parametrize("name", ["Content-Type", "content-type", "CONTENT-TYPE"])
def test_content_type_is_found_in_any_case(handler, context, name):
    headers = {"body": {"content-type": ""}, name: "text/plain"}
    assert ask(handler, context, [{"body": "x"}], headers)[0][0] == 415


def test_a_form_field_of_parsed_json_is_rejected_and_not_printed(handler, context):
    rows = [{"body": image_of(1).tobytes(), "field": {"secret": 1}}]
    [(status, answer)] = ask(handler, context, rows, {})
    assert (status, answer["error"]["code"]) == (422, "unknown_option")
    assert "secret" not in answer["error"]["message"]


def test_a_failing_network_is_answered_without_its_traceback(handler, context, caplog):
    def fail(images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA out of secret memory")

    handler.network = fail
    with caplog.at_level(logging.ERROR):
        good, bad = ask(handler, context, [{"body": image_of(1).tobytes()}, {"body": b"short"}])
    assert (good[0], good[1]["error"]["code"]) == (500, "internal")
    assert "secret" not in json.dumps(good[1])
    assert bad[0] == 422
    assert "CUDA out of secret memory" in caplog.text


def test_a_network_that_gives_nan_is_a_failure_and_no_answer(handler, context):
    handler.network = lambda images: torch.full((len(images), 10), float("nan"))
    assert ask(handler, context, [{"body": image_of(1).tobytes()}])[0][0] == 500


def test_requests_that_are_answered_with_5xx_are_counted_and_rejected_ones_are_not(handler, context, monkeypatch):
    failures: list[int] = []
    monkeypatch.setattr(handler.telemetry, "count_failures", failures.append)
    good, bad = {"body": image_of(1).tobytes()}, {"body": b"short"}
    ask(handler, context, [good, bad])
    assert failures == []
    handler.network = lambda images: torch.full((len(images), 10), float("nan"))
    ask(handler, context, [good, bad, good])
    assert failures == [2]


def test_a_bug_in_decoding_concerns_its_own_request_only(handler, context, monkeypatch):
    def fail_on_bug(body: Any, content_type: str | None, query: Any, json_length: str | None) -> Any:
        if body == b"bug":
            raise KeyError("secret")
        return decode_request(body, content_type, query, json_length)

    monkeypatch.setattr(cifar_handler, "decode_request", fail_on_bug)
    answers = ask(handler, context, [{"body": b"bug"}, {"body": image_of(5).tobytes()}])
    assert [status for status, _ in answers] == [500, 200]
    assert "secret" not in json.dumps(answers[0][1])


def test_loading_warms_every_batch_shape_for_both_kinds_of_numbers(context, monkeypatch):
    seen: list[tuple[int, str]] = []
    run = CifarHandler._run

    def noting(self: CifarHandler, arrays: Any) -> np.ndarray:
        seen.extend((len(images), str(images.dtype)) for images in arrays)
        return run(self, arrays)

    monkeypatch.setattr(CifarHandler, "_run", noting)
    CifarHandler().initialize(context)
    for dtype in ("uint8", "float32"):
        for size in range(1, BATCH_SIZE + 1):
            assert seen.count((size, dtype)) >= 3


def test_loading_sets_the_threads_that_the_model_config_asks_for(model_dir):
    before = torch.get_num_threads()
    try:
        CifarHandler().initialize(context_for(model_dir, {"handler": {"torch_threads": 1}}))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_loading_rejects_a_network_trained_for_other_classes(tmp_path):
    save_network(tmp_path, {"class_names": LABELS[::-1]})
    with pytest.raises(ValueError, match=r"trained for the classes .*truck.*index_to_name"):
        CifarHandler().initialize(context_for(tmp_path))


def test_loading_takes_a_network_without_class_names(tmp_path):
    handler = CifarHandler()
    handler.initialize(context_for(save_network(tmp_path, {})))
    assert handler.model.labels == LABELS


def test_options_come_in_headers_of_any_case(handler, context):
    [(status, answer)] = ask(handler, context, [{"body": image_of(3).tobytes()}], RAW | {"x-Top-K": "2"})
    assert (status, [guess["label"] for guess in answer["top_k"]]) == (200, ["cat", "airplane"])


def test_a_wrong_option_in_a_header_is_rejected(handler, context):
    [(status, answer)] = ask(handler, context, [{"body": image_of(3).tobytes()}], RAW | {"X-Top-K": "11"})
    assert (status, answer["error"]["code"]) == (422, "wrong_top_k")


def test_header_and_query_that_disagree_are_rejected(handler, context):
    row = {"body": image_of(3).tobytes(), "top_k": bytearray(b"3")}
    [(status, answer)] = ask(handler, context, [row], RAW | {"X-Top-K": "2"})
    assert (status, answer["error"]["code"]) == (422, "conflicting_option")


FORM = {"Content-Type": "multipart/form-data; boundary=x"}


def test_a_form_is_answered_by_the_names_of_its_fields_in_their_order(handler, context):
    row = {
        "zebra": bytearray(png_of(image_of(2))),
        "top_k": bytearray(b"1"),
        "ape": bytearray(npy_of(image_of(4) / np.float32(255))),
    }
    [(status, answer)] = ask(handler, context, [row], FORM)
    assert status == 200
    expected = [("zebra", "bird", None), ("ape", "deer", 1)]
    assert [
        (prediction["name"], prediction["prediction"], prediction.get("max_value"))
        for prediction in answer["predictions"]
    ] == expected
    assert [len(prediction["top_k"]) for prediction in answer["predictions"]] == [1, 1]


def test_a_forms_bad_field_is_named_and_leaves_the_rest_of_the_batch_alone(handler, context):
    image = bytearray(png_of(image_of(1)))
    good, bad = ask(handler, context, [{"a": image}, {"a": image, "b": bytearray(b"?")}], FORM)
    assert (good[0], bad[0], bad[1]["error"]["code"]) == (200, 422, "wrong_field")
    assert "'b'" in bad[1]["error"]["message"]


def test_a_form_may_name_the_model_as_invocations_wants(handler, context):
    row = {"model_name": bytearray(b"cifar"), "a": bytearray(png_of(image_of(1)))}
    assert ask(handler, context, [row], FORM)[0][0] == 200


def test_open_inference_is_answered_in_its_own_form(handler, context):
    images = np.stack([image_of(7), image_of(0)])
    tensor = {"name": "x", "shape": [2, 32, 32, 3], "datatype": "UINT8", "data": images.ravel().tolist()}
    [(status, answer)] = ask(handler, context, [{"body": {"id": "q1", "inputs": [tensor]}}], {})
    assert status == 200
    label, index, probabilities = answer.pop("outputs")
    assert answer == {"model_name": "cifar", "model_version": "1.2", "id": "q1"}
    assert label == {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["horse", "airplane"]}
    assert index == {"name": "class_index", "datatype": "INT64", "shape": [2], "data": [7, 0]}
    assert (probabilities["name"], probabilities["datatype"], probabilities["shape"]) == (
        "probabilities",
        "FP32",
        [2, 10],
    )
    assert probabilities["data"] == pytest.approx([0.02] * 7 + [0.82] + [0.02] * 2 + [0.82] + [0.02] * 9)


def test_open_inference_sends_the_outputs_that_were_asked_for_and_top_k_as_two_more(handler, context):
    tensor = {"name": "x", "shape": [1, 32, 32, 3], "datatype": "FP32", "data": (image_of(9) / 255).tolist()}
    body = {
        "inputs": [tensor | {"data": [tensor["data"]]}],
        "outputs": [{"name": "class_index"}],
        "parameters": {"top_k": 2},
    }
    [(status, answer)] = ask(handler, context, [{"body": body}], {})
    assert status == 200
    assert "id" not in answer
    assert answer["parameters"] == {"max_value": 1}
    assert [output["name"] for output in answer["outputs"]] == ["class_index", "top_k_label", "top_k_confidence"]
    assert answer["outputs"][1] == {
        "name": "top_k_label",
        "datatype": "BYTES",
        "shape": [1, 2],
        "data": ["truck", "airplane"],
    }


def test_a_describe_call_gets_the_metadata_and_never_runs_the_network(handler, context):
    handler.network = None
    [(status, answer)] = ask(handler, context, [{}], {"describe": "True"})
    assert status == 200
    limits = answer.pop("limits")
    assert answer == METADATA | {"name": "cifar", "version": "1.2", "model_digest": "0123456789ab"}
    assert (limits["max_images"], limits["max_pixels"], limits["max_top_k"]) == (256, 4096 * 4096, 10)
    assert "application/x-npy" in limits["body_kinds"]


def test_a_client_that_writes_the_describe_header_gets_its_prediction(handler, context):
    rows = [{"body": image_of(3).tobytes()}, {"body": image_of(5).tobytes()}]
    answers = ask(handler, context, rows, RAW | {"describe": "True"})
    assert [answer["prediction"] for _, answer in answers] == ["cat", "dog"]


def test_a_form_without_fields_is_rejected_even_with_the_describe_header(handler, context):
    """TorchServe hands over an empty row for it, as for a describe call; a fuzzer found the likeness."""
    for content_type in ("multipart/form-data; boundary=x", "application/x-www-form-urlencoded"):
        [(status, answer)] = ask(handler, context, [{}], {"describe": "True", "Content-Type": content_type})
        assert 400 <= status < 500
        assert "form" in answer["error"]["code"]


def test_the_handler_counts_requests_and_refusals_but_no_describe_call(handler, context, monkeypatch):
    counted: list[Any] = []
    monkeypatch.setattr(handler.telemetry, "count_batch", counted.append)
    monkeypatch.setattr(handler.telemetry, "count_rejection", counted.append)
    ask(handler, context, [{"body": image_of(3).tobytes()}, {"body": b"short"}])
    ask(handler, context, [{}], {"describe": "True"})
    assert counted == ["wrong_length", 2]
