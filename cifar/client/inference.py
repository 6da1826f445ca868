"""Asks the prediction server: arrays or images out, predictions back (docs/http-api.md)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import orjson
import requests
from numpy.typing import NDArray

from cifar.client.connection import DEFAULT_TIMEOUT_S, Connection, excerpt, read_json
from cifar.client.tokens import Tokens, find_tokens
from cifar.common.addresses import own_addresses
from cifar.common.errors import ModelNotFound, RequestRejected, ServerError, UnexpectedAnswer
from cifar.common.project import IMAGE_SHAPE, MODEL_NAME

# The contract's limit for one request of raw bytes.
MAX_RAW_IMAGES = 256
# A float32 takes up to 16 characters of JSON, an image then 3,072 × 16 = 49 kB, and 64 of them 3.2 MB: half of what
# TorchServe accepts (max_request_size, 6,553,500 bytes).
MAX_JSON_IMAGES = 64

_NO_WORKER = "has no worker to serve inference request"


class Guess(NamedTuple):
    """One class and the probability given to it, 0 to 1."""

    label: str
    confidence: float


@dataclass(frozen=True)
class Prediction:
    """What the model sees in one image; `top_k` is empty unless it was asked for, else most probable first."""

    label: str
    class_index: int
    confidence: float
    top_k: tuple[Guess, ...] = ()


@dataclass(frozen=True)
class Answer:
    """The predictions in the order sent, and the version that made them.

    `model_version` is None where the header is missing (a proxy dropped it), and names all, "1.0, 1.1", where a
    deployment switched versions between two requests of one call.
    """

    predictions: tuple[Prediction, ...]
    model_version: str | None


class InferenceClient(Connection):
    """One connection to a prediction server.

    Usage:
        with InferenceClient() as client:
            client.predict(images)                          # uint8 or float (N, 32, 32, 3), or one (32, 32, 3)
            client.predict(Path("cat.png").read_bytes())    # a PNG or JPEG file
            client.predict(images, top_k=3, version="1.1")

    `url` is by default that of this checkout's server. `timeout_s` bounds the wait for a connection, and each wait for
    data; every request has it for itself.
    """

    def __init__(
        self, url: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S, tokens: Tokens | None = None
    ) -> None:
        url = url or own_addresses().inference
        super().__init__(url, tokens or find_tokens("inference", url), timeout_s)

    def predict(
        self,
        images: NDArray[Any] | bytes,
        *,
        top_k: int | None = None,
        version: str | None = None,
        max_value: int | None = None,
    ) -> Answer:
        """Predict the classes of images, in as many requests as they need.

        Args:
            images: uint8 or float (N, 32, 32, 3), one (32, 32, 3), or the bytes of one PNG or JPEG file.
            top_k: how many guesses to tell for each image, 1 to 10.
            version: the model version to ask; the server's default version if None.
            max_value: 255, or 1 for floats scaled to 0–1; told from the numbers if None. Bytes have none.

        Raises:
            ValueError: the array has another shape or type.
            CifarError: see cifar.common.errors.
        """
        # A header, because TorchServe drops the query of /predictions/… (docs/adr/0004).
        options = {"X-Top-K": str(top_k)} if top_k is not None else {}
        if isinstance(images, bytes):
            return self._ask(images, _image_type(images), version, options, expected=1)
        answers = [
            self._ask(body, content_type, version, options, expected)
            for body, content_type, expected in _encode_arrays(images, max_value)
        ]
        versions = dict.fromkeys(answer.model_version for answer in answers if answer.model_version)
        return Answer(tuple(p for answer in answers for p in answer.predictions), ", ".join(versions) or None)

    def _ask(
        self, body: bytes, content_type: str, version: str | None, options: dict[str, str], expected: int
    ) -> Answer:
        path = f"/predictions/{MODEL_NAME}" + (f"/{quote(version, safe='')}" if version is not None else "")
        response = self.send("POST", path, body=body, headers={"Content-Type": content_type} | options)
        return _read_response(response, self.url, version, expected)


def split_images(images: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Cut (N, 32, 32, 3) into pieces that fit one request each, as views."""
    limit = MAX_RAW_IMAGES if images.dtype == np.uint8 else MAX_JSON_IMAGES
    for start in range(0, len(images), limit):
        yield images[start : start + limit]


def find_max_value(images: NDArray[Any]) -> int:
    """Tell whether the numbers are scaled to 0–255 or 0–1, by the server's own rule.

    To be asked of all images together: a piece may be so dark that it would be taken for the other scale.
    """
    if images.dtype == np.uint8:
        return 255
    scaled = images.size > 0 and images.min() >= 0 and images.max() <= 1 and bool((images % 1 != 0).any())
    return 1 if scaled else 255


def _encode_arrays(images: NDArray[Any], max_value: int | None) -> Iterator[tuple[bytes, str, int]]:
    """Yield (body, content type, number of images) for each request."""
    if images.shape == IMAGE_SHAPE:
        images = images[np.newaxis]
    if images.shape[1:] != IMAGE_SHAPE or not len(images):
        raise ValueError(f"expected images of shape (32, 32, 3) or (N, 32, 32, 3), got {images.shape}")
    if images.dtype == np.uint8:
        for piece in split_images(images):
            yield piece.tobytes(), "application/octet-stream", len(piece)
    elif np.issubdtype(images.dtype, np.floating):
        scale = max_value if max_value is not None else find_max_value(images)
        for piece in split_images(images):
            document = {"images": np.ascontiguousarray(piece, dtype=np.float32), "max_value": scale}
            yield orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), "application/json", len(piece)
    else:
        raise ValueError(f"expected uint8 or floating-point numbers, got {images.dtype}")


def _image_type(image: bytes) -> str:
    return "image/png" if image.startswith(b"\x89PNG") else "image/jpeg"


def _read_response(response: requests.Response, url: str, version: str | None, expected: int) -> Answer:
    status, document, beginning = response.status_code, read_json(response), excerpt(response.content)
    if status >= 500:
        raise ServerError(status, _torchserve_message(document) or beginning)
    if status >= 400:
        raise _read_rejection(response, document, url, version)
    if status != 200:
        raise UnexpectedAnswer(url, f"has status {status}", response.headers.get("Location", beginning))
    if document is None:
        raise UnexpectedAnswer(url, "is not JSON", beginning)
    try:
        entries = document.get("predictions", [document])
        predictions = tuple(_read_prediction(entry) for entry in entries)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswer(url, "is JSON, but no prediction", beginning) from error
    if len(predictions) != expected:
        raise UnexpectedAnswer(url, f"holds {len(predictions)} predictions for {expected} images", beginning)
    return Answer(predictions, response.headers.get("X-Model-Version"))


def _read_prediction(entry: dict[str, Any]) -> Prediction:
    return Prediction(
        label=_text(entry["prediction"]),
        class_index=int(entry["class_index"]),
        confidence=float(entry["confidence"]),
        top_k=tuple(Guess(_text(guess["label"]), float(guess["confidence"])) for guess in entry.get("top_k", ())),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value


def _read_rejection(response: requests.Response, document: Any, url: str, version: str | None) -> Exception:
    """Turn a 4xx into an error: the contract's, TorchServe's own, or a stranger's."""
    status = response.status_code
    match document:
        case {"error": {"code": str(code), "message": str(message)}}:
            return RequestRejected(status, code, message)
        case {"type": "ModelNotFoundException" | "ModelVersionNotFoundException" as code}:
            what = f"no version {version!r} of the model" if version is not None else "no model"
            advice = "Ask for another version or leave it out" if version is not None else "Load it with `make up`"
            message = f"The server at {url} serves {what} {MODEL_NAME!r}. {advice}."
            return ModelNotFound(status, code, message)
        case {"type": str(code), "message": str(message)}:
            return RequestRejected(status, code, message)
    if status == 413:  # comes from the network layer, which explains nothing
        size = len(response.request.body or b"")
        return RequestRejected(status, "too_large", f"The request of {size:,} bytes is larger than the server accepts.")
    return UnexpectedAnswer(url, f"has status {status} and is not one of this service", excerpt(response.content))


def _torchserve_message(document: Any) -> str | None:
    match document:
        case {"message": str(message)} if _NO_WORKER in message:
            return (
                "its queue is full, or the version has no worker: TorchServe says the same of both, and `cifar status` "
                "which it is. A full queue is free again in seconds"
            )
        case {"message": str(message)} | {"error": {"message": str(message)}}:
            return message
    return None
