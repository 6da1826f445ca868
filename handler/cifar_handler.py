"""What TorchServe loads: requests of one batch to images, through the network once, to one answer each.

TorchServe wants exactly one class in this module; everything that does not need TorchServe is in the modules beside it.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray

from answers import AnsweringModel, encode_answer, encode_error
from batching import slice_together
from decoding import BadInput, DecodedRequest, decode_form, decode_request, is_form
from description import describe_model
from pixels import Images
from request_logs import drop_lines_about_requests
from request_options import join_query_and_headers
from telemetry import Telemetry

logger = logging.getLogger(__name__)

# Row fields that are no options: the body itself, and the model's name on POST /invocations?model_name=….
_NOT_OPTIONS = ("body", "model_name")
# The executor profiles a shape on its first call, specialises on the second and runs at full speed from the third.
_WARM_CALLS = 3
_DIGEST_DIGITS = 12

_Outcome = DecodedRequest | tuple[HTTPStatus, bytes]


class CifarHandler:
    """Answers batches. A plain class: BaseHandler would import profilers and runtimes that nothing here uses."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.batch_size = 1
        self.model = AnsweringModel("", "", [])
        self.digest = ""
        self.description = b""
        self.telemetry = Telemetry(None, "", "")
        self.network: torch.jit.ScriptModule

    def initialize(self, context: Any) -> None:
        """Load the network and make every batch shape fast before the worker reports READY.

        Args:
            context: ts.context.Context.

        Raises:
            ValueError: the network was trained for other class names than index_to_name.json holds.
        """
        drop_lines_about_requests()
        started = time.perf_counter()
        model_dir = Path(context.system_properties["model_dir"])
        model = context.manifest["model"]
        self.telemetry = Telemetry(context.metrics, str(context.model_name), str(model["modelVersion"]))
        self.telemetry.tell_start()
        self.batch_size = max(1, int(context.system_properties["batch_size"] or 1))
        self.device = _pick_device(context.system_properties.get("gpu_id"))
        _set_threads(context.model_yaml_config)
        labels = _read_labels(model_dir / "index_to_name.json")
        self.model = AnsweringModel(str(context.model_name), str(model["modelVersion"]), labels)
        file = model_dir / model["serializedFile"]
        self.network, metadata = _load_network(file, self.device, labels)
        self.digest = _find_digest(file, metadata)
        self.description = orjson.dumps(describe_model(self.model, self.digest, metadata))
        self.telemetry.tell_build(self.digest, str(metadata.get("git_commit") or ""))
        self.telemetry.tell_baseline(metadata.get("baseline"))
        loaded = time.perf_counter()
        self._warm_up()
        self.telemetry.start_beating()
        logger.info(
            "Version %s on %s: loaded in %.2f s, batch sizes 1 to %d warmed in %.2f s, torch threads %d",
            self.model.version,
            self.device,
            loaded - started,
            self.batch_size,
            time.perf_counter() - loaded,
            torch.get_num_threads(),
        )

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Answer one batch; one bad request changes nothing for the others.

        Never raises, because TorchServe answers 503 to the whole batch then. A bug gives status 500 to the requests
        that it concerns and its traceback to the log.

        Args:
            data: one row a request: "body", or one key a form field; query parameters are further keys.
            context: ts.context.Context, which takes status and headers by the request's place in `data`.

        Returns:
            As many JSON documents as there are rows, in their order.
        """
        began = time.perf_counter()
        outcomes = [self._decode(row, context, index) for index, row in enumerate(data)]
        decoded = time.perf_counter()
        requests = [it for it in outcomes if isinstance(it, DecodedRequest)]
        probabilities = self._probabilities_of_each(requests)
        inferred = time.perf_counter()
        answers = []
        failures = 0
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, DecodedRequest):
                outcome = self._answer(outcome, next(probabilities))
            status, document = outcome
            failures += status >= HTTPStatus.INTERNAL_SERVER_ERROR
            context.set_response_status(status.value, status.phrase, index)
            context.set_response_content_type(index, "application/json")  # TorchServe sends none by itself
            context.set_response_header(index, "X-Model-Version", self.model.version)
            context.set_response_header(index, "X-Model-Digest", self.digest)
            answers.append(document)
        predictions = sum(document is not self.description for document in answers)
        if predictions:  # a describe call comes alone, and is none
            ended = time.perf_counter()
            self.telemetry.count_batch(predictions)
            if failures:
                self.telemetry.count_failures(failures)
            stages = {"decode": decoded - began, "inference": inferred - decoded, "encode": ended - inferred}
            self.telemetry.count_stages(stages | {"handle": ended - began}, predictions)
        return answers

    def _decode(self, row: Mapping[str, Any], context: Any, index: int) -> _Outcome:
        try:
            headers = _headers(context.get_all_request_header(index))
            if _is_describe_call(row, headers):
                return HTTPStatus.OK, self.description
            if is_form(headers.get("content-type")):
                return decode_form(self._fields(row), headers)
            query = {name: _text(value) for name, value in row.items() if name not in _NOT_OPTIONS}
            options = join_query_and_headers(query, headers)
            return decode_request(row.get("body"), headers.get("content-type"), options)
        except BadInput as refusal:
            self.telemetry.count_rejection(refusal.code)
            return HTTPStatus(refusal.status), encode_error(refusal.code, refusal.message)
        except Exception:
            return _internal_error("decoding a request")

    def _fields(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Leave out the model's name, which POST /invocations wants beside the pictures."""
        if _text(row.get("model_name")) != self.model.name:
            return row
        return {name: content for name, content in row.items() if name != "model_name"}

    def _probabilities_of_each(self, requests: Sequence[DecodedRequest]) -> Iterator[NDArray[np.float32] | None]:
        """Run all images together and deal the rows out again; None to each request where the network failed."""
        if not requests:
            return iter(())
        arrays = [request.images for request in requests]
        try:
            probabilities = self._run(arrays)
        except Exception:
            _internal_error("running the network")
            return iter([None] * len(requests))
        self.telemetry.count_inputs(arrays)
        self.telemetry.count_predictions(probabilities, self.model.labels)
        ends = np.cumsum([len(request.images) for request in requests])
        return iter(np.split(probabilities, ends[:-1]))

    def _run(self, arrays: Sequence[Images]) -> NDArray[np.float32]:
        """Images (N, 32, 32, 3) of several requests to (ΣN, 10), in slices of at most the batch size.

        One request may hold 256 images and a batch several of such requests. Slices bound the memory, and every slice
        has a shape that was warmed at load.
        """
        slices = []
        with torch.inference_mode():
            for images in slice_together(arrays, self.batch_size):
                slices.append(self.network(torch.from_numpy(images).to(self.device)).cpu().numpy())
        probabilities: NDArray[np.float32] = np.concatenate(slices)
        expected = (sum(map(len, arrays)), len(self.model.labels))
        if probabilities.shape != expected or not np.isfinite(probabilities).all():
            raise ValueError(f"the network gave {probabilities.shape}, expected {expected}; or numbers not finite")
        return probabilities

    def _answer(self, request: DecodedRequest, probabilities: NDArray[np.float32] | None) -> tuple[HTTPStatus, bytes]:
        if probabilities is None:
            return _INTERNAL_ERROR
        try:
            return HTTPStatus.OK, encode_answer(request, probabilities, self.model)
        except Exception:
            return _internal_error("encoding an answer")

    def _warm_up(self) -> None:
        for dtype in (np.uint8, np.float32):
            for size in range(1, self.batch_size + 1):
                images = np.zeros((size, 32, 32, 3), dtype=dtype)
                for _ in range(_WARM_CALLS):
                    self._run([images])


def _pick_device(gpu_id: int | None) -> torch.device:
    if gpu_id is not None and torch.cuda.is_available():
        return torch.device(f"cuda:{gpu_id}")
    return torch.device("cpu")


def _set_threads(config: Mapping[str, Any] | None) -> None:
    """Set the threads of one worker: TorchServe leaves torch at one a core, and workers then fight for the cores."""
    threads = ((config or {}).get("handler") or {}).get("torch_threads")
    if threads is not None:
        torch.set_num_threads(int(threads))


def _read_labels(file: Path) -> list[str]:
    names: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return [names[str(index)] for index in range(len(names))]


def _load_network(file: Path, device: torch.device, labels: list[str]) -> tuple[torch.jit.ScriptModule, dict[str, Any]]:
    """Return the network, made fast, and the metadata.json that rides inside its file; empty where there is none."""
    extra_files: dict[str, Any] = {"metadata.json": ""}
    load: Callable[..., torch.jit.ScriptModule] = torch.jit.load  # has no types of its own
    network = load(str(file), map_location=device, _extra_files=extra_files)
    metadata: dict[str, Any] = json.loads(extra_files["metadata.json"] or "{}")
    trained_for = metadata.get("class_names")
    if trained_for is not None and list(trained_for) != labels:
        raise ValueError(
            f"{file.name} was trained for the classes {trained_for}, but index_to_name.json names {labels}: "
            "export the network again, or pack the names that belong to it."
        )
    network.eval()
    # The second freezes too, and then picks layouts and kernels for the CPU.
    optimise = torch.jit.freeze if device.type == "cuda" else torch.jit.optimize_for_inference
    optimised: torch.jit.ScriptModule = optimise(network)
    return optimised, metadata


def _find_digest(file: Path, metadata: Mapping[str, Any]) -> str:
    """Return the first digits of the weights' SHA-256; of the whole file's where the export has not recorded it."""
    recorded = metadata.get("weights_digest")
    if isinstance(recorded, str) and recorded:
        return recorded.rpartition(":")[2][:_DIGEST_DIGITS]
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:_DIGEST_DIGITS]


def _is_describe_call(row: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
    """Tell the management API's `GET /models/cifar?customized=true`, which has a header of TorchServe's and no body.

    A client can write the same header on a prediction; it means nothing there. Such a request has a body, or, where the
    body was a form without any field and the row is empty too, a content type.
    """
    return not row and headers.get("describe") == "True" and "content-type" not in headers


def _headers(headers: Mapping[str, Any]) -> dict[str, str]:
    """Bring header names to lower case: TorchServe keeps the case in which the client wrote them."""
    # Under the name of each body part or query parameter stands a dict, even if that name is "content-type".
    return {name.lower(): value for name, value in headers.items() if isinstance(value, str)}


def _text(value: object) -> str:
    """Bring a query parameter to text; a form's part may be parsed JSON instead, which is no option and not printed."""
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else f"<{type(value).__name__}>"


_INTERNAL_ERROR = (
    HTTPStatus.INTERNAL_SERVER_ERROR,
    encode_error("internal", "The server failed on this request. This is its fault, not yours; its log tells why."),
)


def _internal_error(doing: str) -> tuple[HTTPStatus, bytes]:
    """Log the exception being handled; the client learns nothing of it."""
    logger.exception("Failed when %s", doing)
    return _INTERNAL_ERROR
