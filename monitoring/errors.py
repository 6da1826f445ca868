"""Why the service could not be watched.

CifarError (client.errors)
├── ProgramMissing       Prometheus or Alertmanager is not installed
├── AddressesUnusable    prometheus.yml or alertmanager.yml cannot be read, or names an address that is none
└── MonitorFailed        one ended, was not ready in time, or refused its configuration; carries the end of its log
"""

from client.errors import CifarError


class ProgramMissing(CifarError):
    """A program is not on PATH; the message has the command that installs it."""


class AddressesUnusable(CifarError):
    """A configuration cannot be read, or names an address that is none; the message names the file."""


class MonitorFailed(CifarError):
    """A program ended, was not ready in time, or refused its configuration.

    Attributes:
        log: the last lines of what it wrote.
    """

    def __init__(self, reason: str, log: str) -> None:
        super().__init__(f"{reason}. The end of its log:\n{log or '(empty)'}")
        self.log = log
