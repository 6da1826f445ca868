"""Takes a version out of service, and changes how many workers one has."""

from dataclasses import replace

from cifar.common.errors import ModelNotFound, VersionIsDefault
from cifar.deployment.deploy import DeployOptions
from cifar.deployment.observed_state import read_observed_state
from cifar.deployment.steps import Steps
from cifar.deployment.target import Target
from cifar.deployment.undo import remembered_first, undo
from cifar.deployment.versions import drain, remove, wait_until_ready
from cifar.server.desired_state import DesiredState, ServedVersion, read_desired_state


def undeploy(version: str, target: Target, steps: Steps, options: DeployOptions) -> ServedVersion:
    """Unregister a version after its last answers; its archive stays in the model store.

    Returns:
        What was taken away.

    Raises:
        VersionIsDefault: requests that name no version need it.
        ModelNotFound: it is not served.
        NotDrained: clients keep asking for it by name.
    """
    with target.exclusive(), target.manage() as management:
        remembered, current = read_desired_state(target.store), read_observed_state(target.store, management)
        if current.underway is not None and current.underway.version == version:
            with steps.step(f"undo the interrupted deployment of version {version}"):
                undo(target.store, management, current, remembered.default if remembered else None)
            return ServedVersion(version, current.underway.archive, current.underway.sha256)
        if current.default == version:
            raise VersionIsDefault(
                403,
                "InvalidModelVersionException",
                f"Version {version} is the default: make another one it first, by `cifar rollback` or `cifar deploy`",
            )
        gone = _require(current, version)
        with steps.step(f"wait for the last answers of {version}"):
            drain(management, version, options.drain_grace_s)
        versions = tuple(served for served in current.versions if served.version != version)
        history = tuple(served for served in current.history if served.version != version)
        without = replace(current, versions=versions, history=history)
        with steps.step(f"unregister {version}"), remembered_first(target.store, without):
            remove(management, version)
        return gone


def scale(version: str, workers: int, target: Target, steps: Steps, options: DeployOptions) -> None:
    """Set the number of workers of a version, now and after every restart.

    Raises:
        ModelNotFound: it is not served.
        DeploymentFailed: they do not start; the server keeps trying.
    """
    with target.exclusive(), target.manage() as management:
        current = read_observed_state(target.store, management)
        _require(current, version)
        with steps.step(f"give version {version} {workers} workers"):
            with remembered_first(target.store, current.scaled(version, workers)):
                management.scale(version, workers)
            wait_until_ready(management, version, options.timeout_s, target.server_log)


def _require(current: DesiredState, version: str) -> ServedVersion:
    found = {served.version: served for served in current.versions}
    if version not in found:
        raise ModelNotFound(
            404, "ModelVersionNotFoundException", f"Version {version} is not served; {', '.join(found) or 'none'} is"
        )
    return found[version]
