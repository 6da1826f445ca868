"""Makes the default before the default again."""

from dataclasses import replace

from client.management import ManagementClient
from deployment.archive import inspect_archive
from deployment.current import describe_served, read_current, remembered_first, undo
from deployment.deploy import Change, Options, Rollout
from deployment.errors import ArchiveRefused, NothingToRollBackTo
from deployment.steps import Steps
from deployment.target import Target
from launcher.serving import ServedVersion, read_serving


def rollback(target: Target, steps: Steps, options: Options) -> Change:
    """Go back to the previous default: at once where its workers are there, else by deploying its archive again.

    The version that was the default stays registered. Called again, this goes one further back. A deployment that was
    interrupted after its switch is undone instead.

    Raises:
        NothingToRollBackTo: there was no default before.
        CifarError: as of deploy, where the archive must be deployed again.
    """
    with target.exclusive(), target.manage() as management, target.infer() as inference:
        undone = _undo_interrupted(target, steps, management)
        if undone is not None:
            return undone
        current = read_current(target.store, management)
        before = current.find(current.default) if current.default else None
        if not current.history or before is None:
            raise NothingToRollBackTo(
                "No default before this one is known: nothing has been deployed here, or all undone"
            )
        goal = current.history[-1]
        if _has_all_workers(management, goal):
            back = replace(current, default=goal.version, history=current.history[:-1])
            with steps.step("make it the default") as step, remembered_first(target.store, back):
                management.set_default(goal.version)
                step.note(f"{goal.version} instead of {before.version}")
            return Change(before, goal)
        archive = target.store / goal.archive
        with steps.step("check the archive") as step:
            candidate = inspect_archive(archive)
            if candidate.sha256 != goal.sha256:
                raise ArchiveRefused(
                    f"{archive} is not what was served as version {goal.version}: its SHA-256 is {candidate.sha256}, "
                    f"{goal.sha256} was deployed. Restore it, or deploy another: cifar deploy"
                )
            step.note(f"version {goal.version}, as it was deployed")
        options = replace(options, source=goal.source)
        return Rollout(target, management, inference, steps, options, back=True).run(candidate)


def _undo_interrupted(target: Target, steps: Steps, management: ManagementClient) -> Change | None:
    """Undo an interrupted deployment; return the change where clients notice it."""
    remembered = read_serving(target.store)
    if remembered is None or remembered.underway is None:
        return None
    current = read_current(target.store, management)
    new = remembered.underway.version
    with steps.step(f"undo the interrupted deployment of version {new}"):
        undo(target.store, management, current, remembered.default)
    if current.default != new or remembered.default is None:
        return None
    before, now = current.find(new), remembered.find(remembered.default)
    return Change(before, now) if now is not None else None


def _has_all_workers(management: ManagementClient, goal: ServedVersion) -> bool:
    return any(it.version == goal.version and it.ready for it in describe_served(management)[1])
