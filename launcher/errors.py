"""Why a server could not be started or stopped.

CifarError (client.errors)
├── ConfigUnusable     (client.errors) config.properties is missing, or an address in it cannot be used
├── ArchiveUnusable    the model store has no archive, or a damaged one
├── InvalidStateFile   a file that this tool writes for itself holds what it would not write
│   └── ServingUnusable    serving.json, which says what should run
├── Busy               another process does not end what it does with the same folder
├── JavaMissing        no Java of version 17 or newer, and none from PyPI either
├── PortTaken          another process listens on an address that TorchServe needs
└── StartFailed        TorchServe ended, or did not serve in time; carries the end of its log
"""

from client.errors import CifarError


class ArchiveUnusable(CifarError):
    """The model store holds no archive, or one that TorchServe would not load; the message names the file."""


class InvalidStateFile(CifarError):
    """A file that this tool writes for itself cannot be trusted; the message says why and what to do."""


class ServingUnusable(InvalidStateFile):
    """serving.json, which remembers what was deployed, cannot be trusted."""


class Busy(CifarError):
    """Another process has been working on the same folder for too long."""


class JavaMissing(CifarError):
    """No Java of version 17 or newer was found."""


class PortTaken(CifarError):
    """Another process listens on an address that TorchServe needs; the message says which."""


class StartFailed(CifarError):
    """TorchServe ended or did not serve in time.

    Attributes:
        log: the last lines of what it wrote.
    """

    def __init__(self, reason: str, log: str) -> None:
        super().__init__(f"{reason}. The end of its log:\n{log or '(empty)'}")
        self.log = log
