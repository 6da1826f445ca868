"""Why a version was not deployed, rolled back or removed.

CifarError (client.errors)
├── ArchiveRefused      the archive is not fit to be served; the server has not seen it
│   └── SignatureRefused  nobody signed it, or not the one whose key was given, or it has changed since
├── VersionTaken        the version's name is in use for something else
├── DeploymentFailed    the server did not come to serve the version as it should; what served before serves
├── DeploymentRunning   another process is changing this model store
├── NothingToRollBackTo there was no default before this one
├── RegistryUnusable    MLflow's registry lacks what was asked for, or cannot be asked
├── NotDrained          requests kept waiting for a version that was to go
└── NothingToTrace      no archive, or more than one, is what was asked for
"""

from client.errors import CifarError


class ArchiveRefused(CifarError):
    """The archive is damaged, incomplete, too large, or does not answer as it did when it was exported."""


class SignatureRefused(ArchiveRefused):
    """The archive's signature is missing, of another key, or of other content."""


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
