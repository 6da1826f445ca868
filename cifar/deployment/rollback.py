"""Makes the default before the default again."""

from dataclasses import replace
from pathlib import Path

from cifar.archives.inspection import Candidate, inspect_archive
from cifar.archives.signing import verify_archive
from cifar.client.management import ManagementClient
from cifar.common.errors import ArchiveRejected, NothingToRollBackTo
from cifar.common.files import digest_file
from cifar.deployment.deploy import Change, DeployOptions, Rollout
from cifar.deployment.observed_state import describe_served, read_observed_state
from cifar.deployment.staging import remove_leftovers, staged
from cifar.deployment.steps import Steps
from cifar.deployment.target import Target
from cifar.deployment.undo import remembered_first, undo
from cifar.deployment.verification import check_served
from cifar.server.desired_state import ServedVersion, read_desired_state


def rollback(target: Target, steps: Steps, options: DeployOptions) -> Change:
    """Go back to the previous default: at once where its workers are there, else by deploying its archive again.

    The version that was the default stays registered. Called again, this goes one further back. A deployment that was
    interrupted after its switch is undone instead.

    Raises:
        NothingToRollBackTo: there was no default before.
        CifarError: as of deploy, where the archive must be deployed again.
    """
    with target.exclusive(), target.manage() as management, target.infer() as inference:
        remove_leftovers(target.store)
        undone = _undo_interrupted(target, steps, management)
        if undone is not None:
            return undone
        current = read_observed_state(target.store, management)
        before = current.find(current.default) if current.default else None
        if not current.history or before is None:
            raise NothingToRollBackTo(
                "No default before this one is known: nothing has been deployed here, or all undone"
            )
        goal = current.history[-1]
        archive = target.store / goal.archive
        if _has_all_workers(management, goal):
            back = replace(current, default=goal.version, history=current.history[:-1])
            with steps.step("make it the default") as step:
                check_served(management, _inspect(archive, archive, goal, options, run_network=False))
                with remembered_first(target.store, back):
                    management.set_default(goal.version)
                step.note(f"{goal.version} instead of {before.version}")
            return Change(before, goal)
        with staged(archive, target.store) as copy:
            with steps.step("check the archive") as step:
                candidate = _inspect(copy, archive, goal, options, run_network=True)
                step.note(f"version {goal.version}, as it was deployed")
            options = replace(options, source=goal.source)
            return Rollout(target, management, inference, steps, options, back=True).run(candidate, goal.archive)


def _inspect(file: Path, archive: Path, goal: ServedVersion, options: DeployOptions, run_network: bool) -> Candidate:
    """Check that a file is what was deployed; `archive` is what messages call it."""
    try:
        digest = digest_file(file)
    except OSError as error:
        raise ArchiveRejected(
            f"{archive}, which was served as version {goal.version}, cannot be read: {error.strerror}. Restore it, or "
            "deploy another: cifar deploy"
        ) from error
    if digest != goal.sha256:
        raise ArchiveRejected(
            f"{archive} is not what was served as version {goal.version}: its SHA-256 is {digest}, {goal.sha256} was "
            "deployed. Restore it, or deploy another: cifar deploy"
        )
    if options.public_key is not None:
        verify_archive(file, options.public_key, archive)
    return inspect_archive(file, archive, signed=True, run_network=run_network)  # it was checked when it was deployed


def _undo_interrupted(target: Target, steps: Steps, management: ManagementClient) -> Change | None:
    """Undo an interrupted deployment; return the change where clients notice it."""
    remembered = read_desired_state(target.store)
    if remembered is None or remembered.underway is None:
        return None
    current = read_observed_state(target.store, management)
    new = remembered.underway.version
    with steps.step(f"undo the interrupted deployment of version {new}"):
        undo(target.store, management, current, remembered.default)
    if current.default != new or remembered.default is None:
        return None
    before, now = current.find(new), remembered.find(remembered.default)
    return Change(before, now) if now is not None else None


def _has_all_workers(management: ManagementClient, goal: ServedVersion) -> bool:
    return any(served.version == goal.version and served.ready for served in describe_served(management)[1])
