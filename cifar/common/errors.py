"""Everything that is raised on purpose, for a person to read: what happened, what was expected, what to do next.

CifarError
├── NoCheckout               a command needs the checkout, and only the package is installed
├── ConfigUnusable           config.properties is missing, or an address in it cannot be used
├── InvalidAddress           prometheus.yml or alertmanager.yml cannot be read, or names an address that is none
├── InvalidFile              a JSON file holds no JSON, or something other than an object
├── InvalidStateFile         a file that this tool writes for itself (serving.json) holds what it would not write
├── Busy                     another process does not end what it does with the same folder
├── PortTaken                another process listens on an address that a server needs
├── TrackingError            MLflow's store cannot be used, or lacks the run to resume
│
├── InputUnreadable          client: a local file or sample cannot be sent
├── ServerUnreachable        client: no answer came: refused, timed out, closed in mid-answer
├── RequestRejected           client: 4xx: this request is at fault, the next may be fine
│   ├── ModelNotFound            404: the model, or the version asked for, is not served
│   ├── VersionExists            409: this version is registered already
│   ├── VersionIsDefault         403: the default version cannot go while there are others
│   └── TokenRejected             400: the server asks for a token, and this is not it
├── ServerError              client: 5xx: the server is at fault
├── UnexpectedAnswer         client: an answer came, but not one of this service
│
├── ArchiveUnusable          archives: no archive, or a damaged one
├── ArchiveRejected           archives: it is not fit to be served; no server has seen it
│   └── SignatureRejected         it is not signed, not with the key that was given, or has changed since
│
├── JavaMissing              server: no Java of version 17 or newer, and none from PyPI either
├── ProgramMissing           monitoring: Prometheus or Alertmanager is not installed
├── ProcessFailed            a process ended, or was not ready in time; carries the end of its log
│   ├── StartFailed              server: TorchServe
│   └── MonitorFailed            monitoring: Prometheus, Alertmanager or the log of alerts
│
├── VersionTaken             deployment: the version's name is in use for something else
├── DeploymentFailed         deployment: the server did not come to serve the version; what served before serves
├── DeploymentRunning        deployment: another process is changing this model store
├── NothingToRollBackTo      deployment: there was no default before this one
├── RegistryUnusable         deployment: MLflow's registry lacks what was asked for, or cannot be asked
├── NotDrained               deployment: requests kept waiting for a version that was to go
├── NothingToTrace           provenance: no archive, or more than one, is what was asked for
│
└── TrainingError            training/errors.py draws its own branch
"""


class CifarError(Exception):
    """The root: catch this one to catch them all."""


class NoCheckout(CifarError):
    """What was asked for needs the checkout, not only the installed package."""


class ConfigUnusable(CifarError):
    """The configuration cannot be read, or an address in it cannot be used."""


class InvalidAddress(CifarError):
    """A configuration cannot be read, or names an address that is none; the message names the file."""


class InvalidFile(CifarError):
    """A JSON file holds no JSON, or something other than an object; the message names the file."""


class InvalidStateFile(CifarError):
    """A file that this tool writes for itself cannot be trusted; the message says why and what to do."""


class Busy(CifarError):
    """Another process has been working on the same folder for too long."""


class PortTaken(CifarError):
    """Another process listens on an address that TorchServe needs; the message says which."""


class TrackingError(CifarError):
    """MLflow's store cannot be used, or lacks the run that is to be resumed."""


class InputUnreadable(CifarError):
    """A file is missing, is no image, or is an array of the wrong shape or type."""


class ServerUnreachable(CifarError):
    """No answer came from `url`; `reason` says how that showed."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"No prediction server answers at {url}: {reason}. Start one with `make up`, or give the URL of another."
        )
        self.url = url
        self.reason = reason


class RequestRejected(CifarError):
    """The server rejected this request.

    Attributes:
        status: HTTP status, 400 to 499.
        code: the contract's short name (`wrong_length`), or the type that TorchServe gives its own errors.
        message: the server's words: what came, what was expected, how to fix it.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{message} ({status} {code})")
        self.status = status
        self.code = code
        self.message = message


class ModelNotFound(RequestRejected):
    """The server runs, but does not serve this model, or not this version of it."""


class VersionExists(RequestRejected):
    """A version of this number is registered; versions are never replaced in place."""


class VersionIsDefault(RequestRejected):
    """The version is the default one: another must become it first."""


class TokenRejected(RequestRejected):
    """The server asks for a token, and was shown none, a wrong one or an expired one."""

    def __init__(self, url: str, variable: str) -> None:
        super().__init__(
            400,
            "InvalidKeyException",
            f"{url} asks for a token. Set {variable}, or CIFAR_KEY_FILE to the key_file.json of that server (in run/ "
            "after `cifar up`, else in the folder where it was started), with which expired tokens are renewed",
        )


class ServerError(CifarError):
    """The server failed; `excerpt` is the beginning of what it said."""

    def __init__(self, status: int, excerpt: str) -> None:
        super().__init__(
            f"The server failed with status {status}: {excerpt or 'no explanation'}. "
            "It may still be loading the model; if this stays, read the server's log (run/logs/)."
        )
        self.status = status
        self.excerpt = excerpt


class UnexpectedAnswer(CifarError):
    """What came back is not what this service answers; `excerpt` is its beginning."""

    def __init__(self, url: str, what: str, excerpt: str) -> None:
        super().__init__(
            f"{url} gave an answer that {what}: {excerpt or 'an empty body'}. "
            "Check the URL: another program may listen there, or a proxy stands in between."
        )
        self.url = url
        self.excerpt = excerpt


class ArchiveUnusable(CifarError):
    """The model store holds no archive, or one that TorchServe would not load; the message names the file."""


class ArchiveRejected(CifarError):
    """The archive is damaged, incomplete, too large, or does not answer as it did when it was exported."""


class SignatureRejected(ArchiveRejected):
    """The archive's signature is missing, of another key, or of other content."""


class JavaMissing(CifarError):
    """No Java of version 17 or newer was found."""


class ProcessFailed(CifarError):
    """A process ended, was not ready in time, or rejected its configuration.

    Attributes:
        log: the last lines of what it wrote.
    """

    def __init__(self, reason: str, log: str) -> None:
        super().__init__(f"{reason}. The end of its log:\n{log or '(empty)'}")
        self.log = log


class StartFailed(ProcessFailed):
    """TorchServe ended or did not serve in time."""


class ProgramMissing(CifarError):
    """A program is not on PATH; the message has the command that installs it."""


class MonitorFailed(ProcessFailed):
    """A program of the monitor ended, was not ready in time, or rejected its configuration."""


class VersionTaken(CifarError):
    """A version of this name is served, or lies in the model store, with other content."""


class DeploymentFailed(CifarError):
    """The version did not start, did not answer as recorded, or failed when it was watched."""


class DeploymentRunning(CifarError):
    """Another process is deploying, rolling back or removing a version of the same model store."""


class NothingToRollBackTo(CifarError):
    """No default before this one is known."""


class RegistryUnusable(CifarError):
    """MLflow is not installed, does not answer, or has no such model, alias or version."""


class NotDrained(CifarError):
    """Requests went on waiting for the version; it was left where it is."""


class NothingToTrace(CifarError):
    """No archive, or more than one, has the version or the digest that was asked for."""
