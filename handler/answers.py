"""From probabilities to the bytes of an answer. Knows JSON, but neither TorchServe nor torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from bad_input import BadInput
from decoding import DecodedRequest
from inference_protocol import OpenInferenceReply, Output
from tensors import BYTES, write_elements, write_numbers


@dataclass(frozen=True)
class ModelInfo:
    """What answers say of the model.

    Attributes:
        name: as TorchServe knows it.
        version: of the archive.
        labels: the class names, in the order of the probabilities.
    """

    name: str
    version: str
    labels: Sequence[str]


class Answer(NamedTuple):
    """The bytes of an answer.

    Attributes:
        body: JSON; behind it, where it says so, the bytes of tensors.
        json_length: how many bytes of it are JSON, where others follow; else None.
    """

    body: bytes
    json_length: int | None = None


class Reply(NamedTuple):
    """What one request gets.

    Attributes:
        status: of HTTP.
        answer: its bytes.
        is_prediction: whether it counts as one; what describes the model does not.
    """

    status: HTTPStatus
    answer: Answer
    is_prediction: bool = True


def encode_answer(request: DecodedRequest, probabilities: NDArray[np.float32], model: ModelInfo) -> Answer:
    """Encode the answer to one request, in the form in which it was asked.

    Args:
        request: what was asked.
        probabilities: (N, 10), a row for each of its images.
        model: who answers.
    """
    if request.open_inference is not None:
        return _open_inference(request, request.open_inference, probabilities, model)
    return Answer(_encode(_plain(request, probabilities, model.labels)))


def encode_error(code: str, message: str, *, open_inference: bool = False) -> bytes:
    """Encode a rejection; in the Open Inference Protocol an error is text, which begins with the code."""
    return _encode({"error": f"{code}: {message}" if open_inference else {"code": code, "message": message}})


def reject(rejection: BadInput) -> Reply:
    """Answer why a request is rejected, in the form of its protocol."""
    document = encode_error(rejection.code, rejection.message, open_inference=rejection.open_inference)
    return Reply(HTTPStatus(rejection.status), Answer(document))


def _encode(document: Any) -> bytes:
    # Encoded here: TorchServe would encode dicts with json.dumps(indent=2), many times slower than orjson.
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _plain(request: DecodedRequest, probabilities: NDArray[np.float32], labels: Sequence[str]) -> dict[str, Any]:
    predictions = [_prediction(row, labels, request.top_k) for row in probabilities]
    if request.fields is not None:
        named = zip(request.fields, predictions, strict=True)
        return {
            "predictions": [
                {"name": field.name, **prediction, **({"max_value": 1} if field.scaled else {})}
                for field, prediction in named
            ]
        }
    answer: dict[str, Any] = {"predictions": predictions} if request.many else predictions[0]
    if request.max_value is not None:
        answer["max_value"] = request.max_value
    return answer


def _prediction(probabilities: NDArray[np.float32], labels: Sequence[str], top_k: int | None) -> dict[str, Any]:
    """Describe one image's probabilities (10,); of equal ones the lower index comes first."""
    best = int(probabilities.argmax())
    prediction: dict[str, Any] = {
        "prediction": labels[best],
        "class_index": best,
        "confidence": float(probabilities[best]),
    }
    if top_k is not None:
        ranked = np.argsort(-probabilities, kind="stable")[:top_k]
        prediction["top_k"] = [{"label": labels[index], "confidence": float(probabilities[index])} for index in ranked]
    return prediction


def _open_inference(
    request: DecodedRequest, reply: OpenInferenceReply, probabilities: NDArray[np.float32], model: ModelInfo
) -> Answer:
    """Describe all images as tensors; top_k adds two outputs [N, k], best first."""
    tensors = [
        _tensor(output, _values_of(output, request.top_k, probabilities, model.labels)) for output in reply.outputs
    ]
    answer: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if reply.request_id is not None:
        answer["id"] = reply.request_id
    if request.max_value is not None:
        answer["parameters"] = {"max_value": request.max_value}
    document = _encode(answer | {"outputs": [described for described, _ in tensors]})
    binary = b"".join(data for _, data in tensors if data is not None)
    return (
        Answer(document + binary, len(document)) if any(output.binary for output in reply.outputs) else Answer(document)
    )


def _values_of(
    output: Output, top_k: int | None, probabilities: NDArray[np.float32], labels: Sequence[str]
) -> tuple[str, NDArray[Any]]:
    """Return the datatype and the values of one output; strings as an array of objects."""
    names = np.array(labels, dtype=object)
    if output.name == "class_index":
        return "INT64", probabilities.argmax(axis=1)
    if output.name == "label":
        return BYTES, names[probabilities.argmax(axis=1)]
    if output.name == "probabilities" and not output.classes:
        return "FP32", probabilities
    ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, : output.classes or top_k]
    if output.name == "top_k_label":
        return BYTES, names[ranked]
    confidences = np.take_along_axis(probabilities, ranked, axis=1)
    if output.name == "top_k_confidence":
        return "FP32", confidences
    # Triton's classification extension: value, index and label in one string.
    named = [
        f"{confidence:f}:{index}:{labels[index]}"
        for confidence, index in zip(confidences.ravel().tolist(), ranked.ravel().tolist(), strict=True)
    ]
    return BYTES, np.array(named, dtype=object).reshape(ranked.shape)


def _tensor(output: Output, values: tuple[str, NDArray[Any]]) -> tuple[dict[str, Any], bytes | None]:
    """Describe one output, with its data; or without, and the bytes that hold them."""
    datatype, array = values
    described = {"name": output.name, "datatype": datatype, "shape": list(array.shape)}
    flat = array.ravel()
    if not output.binary:
        return described | {"data": flat.tolist() if datatype == BYTES else np.ascontiguousarray(flat)}, None
    data = write_elements(text.encode() for text in flat) if datatype == BYTES else write_numbers(flat, datatype)
    return described | {"parameters": {"binary_data_size": len(data)}}, data
