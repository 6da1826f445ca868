"""TorchServe's management API, typed: versions of a model come, are scaled, become the default, and go.

Only what may be asked twice is asked again where the server does not answer: reading, scaling and setting the default.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import requests

from cifar.client.connection import DEFAULT_TIMEOUT_S, Connection, excerpt, read_json
from cifar.client.tokens import Tokens, find_tokens
from cifar.common.addresses import own_addresses
from cifar.common.errors import (
    ModelNotFound,
    RequestRejected,
    ServerError,
    ServerUnreachable,
    UnexpectedAnswer,
    VersionExists,
    VersionIsDefault,
)
from cifar.common.project import MODEL_NAME

_ATTEMPTS = 3
_PAUSE_S = 0.5
_PAGE = 100  # models


@dataclass(frozen=True)
class Worker:
    """One worker process.

    Attributes:
        id: TorchServe's own, such as "9000".
        ready: it has loaded the model. TorchServe calls every other state UNLOADING, loading included.
        started: when TorchServe began to start it.
        pid: of its process; None while there is none.
    """

    id: str
    ready: bool
    started: datetime
    pid: int | None


@dataclass(frozen=True)
class ModelVersion:
    """One registered version, as the server describes it.

    Attributes:
        name: of the model.
        version: as its archive says.
        archive: what was registered: a file's name in the model store, or a URL.
        workers: its workers, of which there should be `min_workers` to `max_workers`.
        batch_size: requests that are answered together at most.
        max_batch_delay_ms: how long a batch that is not full waits.
        response_timeout_s: after which a worker counts as stuck.
        queue_length: requests that wait.
        queue_capacity: how many more may.
    """

    name: str
    version: str
    archive: str
    workers: tuple[Worker, ...]
    min_workers: int
    max_workers: int
    batch_size: int
    max_batch_delay_ms: int
    response_timeout_s: int
    queue_length: int
    queue_capacity: int

    @property
    def ready_workers(self) -> int:
        """How many workers have loaded the model."""
        return sum(worker.ready for worker in self.workers)

    @property
    def ready(self) -> bool:
        """Whether all its workers are there and have loaded the model, and it has any."""
        return self.ready_workers == len(self.workers) >= max(1, self.min_workers)


class ManagementClient(Connection):
    """The management API for one model.

    Usage:
        with ManagementClient() as management:
            management.register("cifar-2.0.mar")        # returns while its workers load
            management.describe("2.0").ready            # poll this
            management.set_default("2.0")
            management.unregister("1.0")

    Args:
        url: where the management API listens, or `unix:` and the path of its socket; None: of this checkout's server.
        model: the model's name.
        timeout_s: bounds each wait for the server.
        tokens: what to show a server that asks for it.
        attempts: how often to ask for what does no harm when it is asked twice.

    Every call raises CifarError (cifar.common.errors): ServerUnreachable, ServerError, TokenRejected, UnexpectedAnswer,
    and ModelNotFound where it names a version that is not there.
    """

    def __init__(
        self,
        url: str | None = None,
        model: str = MODEL_NAME,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        tokens: Tokens | None = None,
        attempts: int = _ATTEMPTS,
    ) -> None:
        url = url or own_addresses().management
        super().__init__(url, tokens or find_tokens("management", url, url), timeout_s)
        self.model = model
        self._attempts = attempts

    def list_models(self, page_size: int = _PAGE) -> Iterator[str]:
        """Yield the names of all models that are registered, page by page."""
        if page_size < 1:
            raise ValueError(f"page_size is {page_size}; expected at least 1")
        query: dict[str, Any] = {"limit": page_size}
        while True:
            document = self._call("GET", "/models", query=query, again=True)
            try:
                yield from [str(entry["modelName"]) for entry in document["models"]]
                token = document.get("nextPageToken")
            except (KeyError, TypeError, AttributeError) as error:
                raise self._unexpected("is no list of models", document) from error
            if token is None:
                return
            query = {"limit": page_size, "next_page_token": token}

    def describe(self, version: str | None = None) -> ModelVersion:
        """Describe one version; the default one if None."""
        return self._describe(self._path(version))[0]

    def describe_all(self, model: str | None = None) -> list[ModelVersion]:
        """Describe all versions, of another model where one is named."""
        return self._describe(f"/models/{quote(model or self.model, safe='')}/all")

    def describe_handler(self, version: str | None = None) -> dict[str, Any]:
        """Ask the handler what it says of its model: it answers as a prediction would be answered, through the queue.

        Returns:
            The document of docs/http-api.md, "What is served".
        """
        document = self._call("GET", self._path(version), query={"customized": "true"}, again=True)
        try:
            return dict(document[0]["customizedMetadata"])
        except (LookupError, TypeError, ValueError) as error:
            raise self._unexpected("has no customizedMetadata", document) from error

    def register(self, archive: str) -> None:
        """Register an archive and begin to start its workers; returns before they are ready.

        Waiting for them would block one of the threads that inference shares. How many there are, and how they batch,
        says model-config.yaml inside the archive: TorchServe lets it overrule what a call says.

        Args:
            archive: its file name in the server's model store.

        Raises:
            ValueError: not a plain file name: the server takes URLs and looks for `..` in some places only.
            VersionExists: it holds a version that is registered.
            RequestRejected: the server cannot read it.
        """
        if not can_be_registered(archive):
            raise ValueError(f"{archive!r} is not the name of an archive in the model store, such as cifar-2.0.mar")
        try:
            self._call("POST", "/models", query={"url": archive, "synchronous": "false"})
        except ModelNotFound as error:
            message = f"The model store of the server at {self.url} has no {archive}."
            raise RequestRejected(error.status, error.code, message) from error

    def scale(self, version: str, workers: int) -> None:
        """Set the number of workers of a version; returns before they have started or ended.

        Fewer are killed with the requests in them: drain the version first.
        """
        if workers < 0:  # TorchServe takes what is no number for 1
            raise ValueError(f"workers is {workers}; expected at least 0")
        self._call("PUT", self._path(version), query={"min_worker": workers, "max_worker": workers}, again=True)

    def set_default(self, version: str) -> None:
        """Have requests that name no version answered by this one; those that wait stay with the one before."""
        self._call("PUT", self._path(version) + "/set-default", again=True)

    def unregister(self, version: str) -> None:
        """Remove a version; its workers are killed with the requests in them: drain it first.

        Raises:
            VersionIsDefault: others are there, and none of them is the default.
        """
        self._call("DELETE", self._path(version))

    def _describe(self, path: str) -> list[ModelVersion]:
        document = self._call("GET", path, again=True)
        try:
            found = [_read_version(entry) for entry in document]
        except (KeyError, TypeError, ValueError) as error:
            raise self._unexpected("describes no model", document) from error
        if not found:
            raise self._unexpected("describes no model", document)
        return found

    def _path(self, version: str | None = None) -> str:
        return f"/models/{quote(self.model, safe='')}" + (f"/{quote(version, safe='')}" if version is not None else "")

    def _call(self, method: str, path: str, query: dict[str, Any] | None = None, again: bool = False) -> Any:
        """Return the parsed answer; `again`: asking twice does no harm, so a failure is worth another try."""
        for left in reversed(range(self._attempts if again else 1)):
            try:
                return self._read(self.send(method, path, query=query))
            except (ServerUnreachable, ServerError):
                if not left:
                    raise
            time.sleep(_PAUSE_S)
        raise AssertionError("unreachable")

    def _read(self, response: requests.Response) -> Any:
        status, document = response.status_code, read_json(response)
        if status in (200, 202) and document is not None:
            return document
        match document:
            case {"type": str(code), "message": str(message)} if status < 500:
                raise _REFUSALS.get(code, RequestRejected)(status, code, message)
            case {"message": str(message)}:
                raise ServerError(status, message)
        if status >= 500:
            raise ServerError(status, excerpt(response.content))
        raise UnexpectedAnswer(self.url, f"has status {status} and is not of TorchServe", excerpt(response.content))

    def _unexpected(self, what: str, document: object) -> UnexpectedAnswer:
        return UnexpectedAnswer(self.url, what, excerpt(str(document).encode()))


def can_be_registered(archive: str) -> bool:
    """Tell whether this is the bare name of an archive in a model store, and not hidden there."""
    return re.fullmatch(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]*\.mar", archive) is not None


# By TorchServe's name for them.
_REFUSALS = {
    "ModelNotFoundException": ModelNotFound,
    "ModelVersionNotFoundException": ModelNotFound,
    "ConflictStatusException": VersionExists,
    "InvalidModelVersionException": VersionIsDefault,
}


def _read_version(entry: dict[str, Any]) -> ModelVersion:
    queue = entry["jobQueueStatus"]
    return ModelVersion(
        name=str(entry["modelName"]),
        version=str(entry["modelVersion"]),
        archive=str(entry["modelUrl"]),
        workers=tuple(_read_worker(worker) for worker in entry["workers"]),
        min_workers=int(entry["minWorkers"]),
        max_workers=int(entry["maxWorkers"]),
        batch_size=int(entry["batchSize"]),
        max_batch_delay_ms=int(entry["maxBatchDelay"]),
        response_timeout_s=int(entry["responseTimeout"]),
        queue_length=int(queue["pendingRequests"]),
        queue_capacity=int(queue["remainingCapacity"]),
    )


def _read_worker(entry: dict[str, Any]) -> Worker:
    pid = int(entry["pid"])
    return Worker(
        id=str(entry["id"]),
        ready=entry["status"] == "READY",
        started=datetime.fromisoformat(entry["startTime"]),
        pid=pid if pid > 0 else None,
    )
