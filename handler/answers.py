"""From probabilities to the bytes of an answer. Knows JSON, but neither TorchServe nor torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from decoding import DecodedRequest
from open_inference import OpenInferenceReply


@dataclass(frozen=True)
class AnsweringModel:
    """What answers say of the model.

    Attributes:
        name: as TorchServe knows it.
        version: of the archive.
        labels: the class names, in the order of the probabilities.
    """

    name: str
    version: str
    labels: Sequence[str]


def encode_answer(request: DecodedRequest, probabilities: NDArray[np.float32], model: AnsweringModel) -> bytes:
    """Encode the answer to one request, in the form in which it was asked.

    Args:
        request: what was asked.
        probabilities: (N, 10), a row for each of its images.
        model: who answers.
    """
    if request.open_inference is not None:
        answer = _open_inference(request, request.open_inference, probabilities, model)
    else:
        answer = _plain(request, probabilities, model.labels)
    # Encoded here: TorchServe would encode dicts with json.dumps(indent=2), many times slower than orjson.
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_error(code: str, message: str) -> bytes:
    """Encode a refusal."""
    return orjson.dumps({"error": {"code": code, "message": message}})


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
    request: DecodedRequest, reply: OpenInferenceReply, probabilities: NDArray[np.float32], model: AnsweringModel
) -> dict[str, Any]:
    """Describe all images as tensors; top_k adds two outputs [N, k], best first."""
    best = probabilities.argmax(axis=1)
    tensors: Mapping[str, Callable[[], dict[str, Any]]] = {
        "label": lambda: _tensor("label", "BYTES", best.shape, [model.labels[index] for index in best]),
        "class_index": lambda: _tensor("class_index", "INT64", best.shape, best),
        "probabilities": lambda: _tensor("probabilities", "FP32", probabilities.shape, probabilities.ravel()),
    }
    outputs = [tensors[name]() for name in reply.outputs]
    if request.top_k is not None:
        ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, : request.top_k]
        confidences = np.take_along_axis(probabilities, ranked, axis=1).ravel()
        outputs.append(
            _tensor("top_k_label", "BYTES", ranked.shape, [model.labels[i] for i in ranked.ravel().tolist()])
        )
        outputs.append(_tensor("top_k_confidence", "FP32", ranked.shape, confidences))
    answer: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if reply.request_id is not None:
        answer["id"] = reply.request_id
    if request.max_value is not None:
        answer["parameters"] = {"max_value": request.max_value}
    return answer | {"outputs": outputs}


def _tensor(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": data}
