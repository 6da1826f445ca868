"""What TorchServe loads: requests of one batch to images, through the network once, to one answer each.

TorchServe wants exactly one class in this module; everything that does not need TorchServe is in the modules beside it.
"""

import gc
import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray

# TorchServe puts PYTHONPATH before the archive's folder; a module of the same name there would be taken instead.
_FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(_FOLDER))

from answers import (  # noqa: E402
    Answer,
    ModelInfo,
    Reply,
    encode_answer,
    encode_error,
    reject,
)
from bad_input import show  # noqa: E402
from batching import rebatch  # noqa: E402
from body_headers import lower_names, read_body  # noqa: E402
from decoding import BadInput, DecodedRequest, decode_form, decode_request, is_form, only_part  # noqa: E402
from description import describe_model, describe_paths  # noqa: E402
from pixels import Images  # noqa: E402
from request_logs import drop_lines_about_requests  # noqa: E402
from request_options import OPTION_NAMES, join_query_and_headers  # noqa: E402
from telemetry import Telemetry  # noqa: E402

logger = logging.getLogger(__name__)

# Row fields that are no options: the body itself, and the model's name on POST /invocations?model_name=….
_NOT_OPTIONS = ("body", "model_name")
# The executor profiles a shape on its first call, specialises on the second and runs at full speed from the third.
_WARM_CALLS = 3
_DIGEST_DIGITS = 12


class CifarHandler:
    """Answers batches. A plain class: BaseHandler would import profilers and runtimes that nothing here uses."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.batch_size = 1
        self.model = ModelInfo("", "", [])
        self.digest = ""
        self.description = b""
        self.paths: Mapping[str, bytes] = {}
        self.telemetry = Telemetry(None, "", "")
        self.network: torch.jit.ScriptModule

    def initialize(self, context: Any) -> None:
        """Load the network and make every batch shape fast before the worker reports READY.

        Args:
            context: ts.context.Context.

        Raises:
            ValueError: the network was trained for other class names than index_to_name.json holds.
            RuntimeError: a module of the archive's was loaded from elsewhere.
        """
        drop_lines_about_requests()
        started = time.perf_counter()
        model_dir = Path(context.system_properties["model_dir"])
        _check_modules(model_dir)
        model = context.manifest["model"]
        self.telemetry = Telemetry(context.metrics, str(context.model_name), str(model["modelVersion"]))
        self.telemetry.count_start()
        self.batch_size = max(1, int(context.system_properties["batch_size"] or 1))
        self.device = _pick_device(context.system_properties.get("gpu_id"))
        _set_threads(context.model_yaml_config)
        labels = _read_labels(model_dir / "index_to_name.json")
        self.model = ModelInfo(str(context.model_name), str(model["modelVersion"]), labels)
        file = model_dir / model["serializedFile"]
        self.network, metadata = _load_network(file, self.device, labels)
        self.digest = _find_digest(file, metadata)
        self.description = orjson.dumps(describe_model(self.model, self.digest, metadata))
        self.paths = {path: orjson.dumps(answer) for path, answer in describe_paths(self.model).items()}
        self.telemetry.set_build_info(self.digest, str(metadata.get("git_commit") or ""))
        self.telemetry.set_baseline(metadata.get("baseline"))
        loaded = time.perf_counter()
        self._warm_up()
        _collect_seldom()
        self.telemetry.start_heartbeat()
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
        requests = [outcome for outcome in outcomes if isinstance(outcome, DecodedRequest)]
        probabilities = self._probabilities_of_each(requests)
        inferred = time.perf_counter()
        answers, predictions, failures = [], 0, 0
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, DecodedRequest):
                outcome = self._answer(outcome, next(probabilities))
            status, (body, json_length), is_prediction = outcome
            predictions += is_prediction
            failures += status >= HTTPStatus.INTERNAL_SERVER_ERROR
            context.set_response_status(status.value, status.phrase, index)
            content_type = "application/json"  # TorchServe sends none by itself
            if json_length is not None:
                content_type = "application/octet-stream"
                context.set_response_header(index, "Inference-Header-Content-Length", str(json_length))
            context.set_response_content_type(index, content_type)
            context.set_response_header(index, "X-Model-Version", self.model.version)
            context.set_response_header(index, "X-Model-Digest", self.digest)
            answers.append(body)
        if predictions:  # else only what describes the model was asked for
            ended = time.perf_counter()
            self.telemetry.count_batch(predictions)
            if failures:
                self.telemetry.count_failures(failures)
            stages = {"decode": decoded - began, "inference": inferred - decoded, "encode": ended - inferred}
            self.telemetry.count_stages(stages | {"handle": ended - began}, predictions)
        return answers

    def _decode(self, row: Mapping[str, Any], context: Any, index: int) -> DecodedRequest | Reply:
        json_length = None
        try:
            headers = lower_names(context.get_all_request_header(index), len(row))
            json_length = headers.get("inference-header-content-length")
            description = self._describe(row, headers)
            if description is not None:
                return Reply(HTTPStatus.OK, Answer(description), is_prediction=False)
            content_type = headers.get("content-type")
            if is_form(content_type):
                return decode_form(self._fields(row), headers)
            if "body" not in row and content_type is None:
                return self._decode_parts(row, headers)
            query = {name: _text(value) for name, value in row.items() if name not in _NOT_OPTIONS}
            options = join_query_and_headers(query, headers)
            return decode_request(read_body(row.get("body"), headers), content_type, options, json_length)
        except BadInput as rejection:
            self.telemetry.count_rejection(rejection.code)
            rejection.open_inference |= json_length is not None
            return reject(rejection)
        except Exception:
            return _internal_error("decoding a request", open_inference=json_length is not None)

    def _describe(self, row: Mapping[str, Any], headers: Mapping[str, str]) -> bytes | None:
        """Return what describes the model, where that was asked for: by the management API, or as KServe's clients do.

        TorchServe marks the management API's `GET /models/cifar?customized=true` by a header and sends it without body.
        A client can write the same header on a prediction; it means nothing there. Such a request has a body, or, where
        the body was a form without any field and the row is empty too, a content type.
        """
        if not row and headers.get("describe") == "True" and "content-type" not in headers:
            return self.description
        return self.paths.get(headers.get("url_path", ""))  # what followed the version in the address

    def _decode_parts(self, row: Mapping[str, Any], headers: Mapping[str, str]) -> DecodedRequest:
        """Read a request of gRPC, whose parts have names of the sender's choice and which has no headers."""
        parts = self._fields(row)
        options = {name: _text(parts[name]) for name in OPTION_NAMES if name in parts}
        return decode_request(only_part(parts), None, join_query_and_headers(options, headers))

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
            for images in rebatch(arrays, self.batch_size):
                slices.append(self.network(torch.from_numpy(images).to(self.device)).cpu().numpy())
        probabilities: NDArray[np.float32] = np.concatenate(slices)
        expected = (sum(map(len, arrays)), len(self.model.labels))
        if probabilities.shape != expected or not np.isfinite(probabilities).all():
            raise ValueError(f"the network gave {probabilities.shape}, expected {expected}; or numbers not finite")
        return probabilities

    def _answer(self, request: DecodedRequest, probabilities: NDArray[np.float32] | None) -> Reply:
        open_inference = request.open_inference is not None
        if probabilities is None:
            return _failure(open_inference)
        try:
            return Reply(HTTPStatus.OK, encode_answer(request, probabilities, self.model))
        except Exception:
            return _internal_error("encoding an answer", open_inference=open_inference)

    def _warm_up(self) -> None:
        for dtype in (np.uint8, np.float32):
            for size in range(1, self.batch_size + 1):
                images = np.zeros((size, 32, 32, 3), dtype=dtype)
                for _ in range(_WARM_CALLS):
                    self._run([images])


def _check_modules(model_dir: Path) -> None:
    """Make sure that what runs is what was packed: this module, and those beside it, come from the archive's folder."""
    packed = model_dir.resolve() if (model_dir / f"{__name__}.py").is_file() else _FOLDER
    for file in sorted(packed.glob("*.py")):
        module = sys.modules.get(file.stem)
        loaded = getattr(module, "__file__", None)
        if module is not None and (loaded is None or Path(loaded).resolve() != file):
            raise RuntimeError(
                f"The module {file.stem} was loaded from {loaded}, expected the archive's, {file}: start TorchServe "
                "without PYTHONPATH (`cifar up` does), or take that folder out of it."
            )


def _pick_device(gpu_id: int | None) -> torch.device:
    if gpu_id is not None and torch.cuda.is_available():
        return torch.device(f"cuda:{gpu_id}")
    return torch.device("cpu")


def _set_threads(config: Mapping[str, Any] | None) -> None:
    """Set the threads of one worker: TorchServe leaves torch at one a core, and workers then fight for the cores."""
    threads = ((config or {}).get("handler") or {}).get("torch_threads")
    if threads is not None:
        torch.set_num_threads(int(threads))


def _collect_seldom() -> None:
    """Let the garbage collector look at what a request made a few times, not thousands of times.

    TorchServe parses JSON before the handler sees it. 6.5 MB of empty lists took a worker 0.9 s, most of it in the
    collector; so it is 0.3 s, and 256 nested images take half as long.
    """
    gc.collect()
    gc.freeze()  # what was loaded stays
    gc.set_threshold(50_000, 10, 10)


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


def _text(value: object) -> str:
    """Bring a query parameter to text; a form's part may be parsed JSON instead, which is no option and only named."""
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else show(value)


def _failure(open_inference: bool) -> Reply:
    message = "The server failed on this request. This is its fault, not yours; its log says why."
    return Reply(
        HTTPStatus.INTERNAL_SERVER_ERROR, Answer(encode_error("internal", message, open_inference=open_inference))
    )


def _internal_error(doing: str, *, open_inference: bool = False) -> Reply:
    """Log the exception being handled; the client learns nothing of it."""
    logger.exception("Failed when %s", doing)
    return _failure(open_inference)
