"""Compares what a server says it serves with what was checked."""

from cifar.archives.inspection import Candidate
from cifar.client.management import ManagementClient
from cifar.common.errors import CifarError, DeploymentFailed

_DIGITS = 12  # as many as X-Model-Digest has


def check_served(management: ManagementClient, candidate: Candidate) -> None:
    """Ask a version's worker for the digest of its model.

    Raises:
        DeploymentFailed: it is of another model, or does not say.
    """
    recorded = candidate.metadata.get("weights_digest")
    # As the handler does (handler/cifar_handler.py): of the weights, else of the file.
    expected = recorded.rpartition(":")[2] if isinstance(recorded, str) and recorded else candidate.model_digest
    try:
        said = management.customized(candidate.version).get("model_digest")
    except CifarError as error:
        raise DeploymentFailed(f"Version {candidate.version} does not say which model it serves: {error}") from error
    if said != expected[:_DIGITS]:
        raise DeploymentFailed(
            f"Version {candidate.version} serves another model than was checked: its X-Model-Digest is "
            f"{repr(said)[:80]}, expected {expected[:_DIGITS]!r}"
        )
