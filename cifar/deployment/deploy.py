"""Brings a version into service without losing a request, or leaves everything as it was."""

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cifar.archives.build import normalise
from cifar.archives.inspection import Candidate, check_version, inspect_archive
from cifar.archives.signing import SIGNING_KEY, verify_archive
from cifar.client.inference import InferenceClient
from cifar.client.management import ManagementClient, can_be_registered
from cifar.common.errors import ArchiveRejected, CifarError, DeploymentFailed, SignatureRejected, VersionTaken
from cifar.common.files import digest_file
from cifar.common.project import MODEL_NAME
from cifar.deployment.observed_state import describe_served, read_observed_state
from cifar.deployment.staging import place, staged
from cifar.deployment.steps import Steps
from cifar.deployment.target import Target
from cifar.deployment.undo import undo
from cifar.deployment.verification import check_parity, check_served, watch
from cifar.deployment.versions import DRAIN_GRACE_S, drain, remove, wait_until_ready
from cifar.server.desired_state import (
    DesiredState,
    PendingDeployment,
    ServedVersion,
    forget_desired_state,
    read_desired_state,
    write_desired_state,
)

_HISTORY = 50  # defaults that are remembered


@dataclass(frozen=True)
class DeployOptions:
    """How to deploy.

    Attributes:
        keep: how many versions stay registered, the new one among them.
        watch_s: seconds for which the new default is watched.
        timeout_s: seconds in which its workers must be READY.
        drain_grace_s: seconds that requests which a worker holds may take.
        source: where the archive comes from, if not from its path.
        public_key: the archive must be signed with the other half of this key; None: it need not be signed.
    """

    keep: int = 2
    watch_s: float = 5.0
    timeout_s: float = 120.0
    drain_grace_s: float = DRAIN_GRACE_S
    source: str | None = None
    public_key: Path | None = None


@dataclass(frozen=True)
class Change:
    """What a command has changed: the default before, None where there was none, and the default now."""

    before: ServedVersion | None
    now: ServedVersion


@dataclass(frozen=True)
class _Start:
    """From where a deployment goes: what is served, the default before it, and whether it was begun already.

    Attributes:
        current: what is served.
        default: the version that a failure goes back to; None: there was none.
        resumes: an interrupted deployment of the same archive is resumed.
        first: nothing was ever deployed.
    """

    current: DesiredState
    default: str | None
    resumes: bool
    first: bool


def deploy(archive: Path, target: Target, steps: Steps, options: DeployOptions, version: str | None = None) -> Change:
    """Bring an archive into service: check, store, register, compare, switch, watch, drain.

    Any failure before the switch leaves what served before serving, and nothing of the new version; any failure after
    it switches back. An interrupted deployment is finished by the same call, and undone by one of another archive.

    Args:
        archive: the file.
        target: the server.
        steps: told what happens.
        options: how.
        version: serve it as this version, instead of the one in its manifest.

    Raises:
        CifarError: the subclass says what failed (cifar/common/errors.py).
    """
    options = options if options.source else replace(options, source=os.path.realpath(archive))
    with (
        staged(archive, target.store) as copy,
        target.manage() as management,
        target.infer() as inference,
    ):
        with steps.step("check the archive") as step:
            if options.public_key is not None:
                verify_archive(copy, options.public_key, archive)
            candidate = _inspect(copy, archive, version, options.public_key)
            name = _choose_name(archive, candidate, target.store)
            step.note(_describe(candidate, archive, options))
        with target.exclusive():
            return Rollout(target, management, inference, steps, options).run(candidate, name)


class Rollout:
    """One archive's way to being the default; the caller holds the model store's lock.

    Args:
        target: the server.
        management, inference: connections to it.
        steps: told what happens.
        options: how.
        back: it was the default before, and the one that took its place is not to be gone back to.
    """

    def __init__(
        self,
        target: Target,
        management: ManagementClient,
        inference: InferenceClient,
        steps: Steps,
        options: DeployOptions,
        back: bool = False,
    ) -> None:
        self._target = target
        self._management = management
        self._inference = inference
        self._steps = steps
        self._options = options
        self._back = back

    def run(self, candidate: Candidate, name: str) -> Change:
        """Bring a checked archive into service; raises CifarError, and then what served before serves.

        Args:
            candidate: a copy in the model store that no other process writes (cifar/deployment/staging.py). It is
                moved.
            name: of its file in the model store.
        """
        if digest_file(candidate.path) != candidate.sha256:
            raise ArchiveRejected(f"{candidate.path} has changed since it was checked; deploy it again")
        start = self._find_start(candidate)
        if start.default == candidate.version and not start.resumes:
            return self._already_default(start.current, candidate, name)
        underway = start.current.underway or self._plan(start.current, candidate, name)
        current = replace(start.current, default=start.default, underway=underway)
        # What is registered and what is going to be are different things until the end.
        write_desired_state(self._target.store, replace(current, versions=_without(current, underway)))
        try:
            self._register_and_verify(candidate, underway)
            self._switch(candidate, start.default)
            now = self._record(current, candidate, underway)
        except BaseException as error:
            self._undo(current, start.default, forget=start.first, error=error)
            raise
        self._unregister_surplus()
        return Change(current.find(start.default) if start.default else None, now)

    def _find_start(self, candidate: Candidate) -> _Start:
        """Say from where this goes: on from an interrupted deployment of the same archive; another one is undone."""
        store = self._target.store
        remembered = read_desired_state(store)
        current = read_observed_state(store, self._management)
        pending = current.underway
        resumes = pending is not None and (pending.version, pending.sha256) == (candidate.version, candidate.sha256)
        if pending is not None and not resumes:
            with self._steps.step(f"undo the interrupted deployment of version {pending.version}"):
                undo(store, self._management, current, remembered.default if remembered else None)
            remembered = read_desired_state(store)
            current = read_observed_state(store, self._management)
        default = remembered.default if resumes and remembered else current.default
        if default not in [served.version for served in current.versions]:
            default = None
        return _Start(current, default, resumes, first=remembered is None)

    def _plan(self, current: DesiredState, candidate: Candidate, name: str) -> PendingDeployment:
        """Decide what there is to do; raises VersionTaken where something else has the name."""
        served = next((served for served in current.versions if served.version == candidate.version), None)
        if served is not None and served.sha256 != candidate.sha256:
            raise VersionTaken(
                f"Version {candidate.version} is served from {served.archive} with other content (SHA-256 "
                f"{served.sha256[:12]}…, yours {candidate.sha256[:12]}…). Deploy yours under another: --version"
            )
        there = self._target.store / name
        if there.exists() and (found := _digest(there)) != candidate.sha256:
            raise VersionTaken(
                f"{there} has other content (SHA-256 {found[:12]}…, yours {candidate.sha256[:12]}…). "
                "Deploy yours under another version: --version; or move that file away, if nothing uses it"
            )
        copied = not there.exists()
        return PendingDeployment(candidate.version, name, candidate.sha256, copied=copied, registered=served is None)

    def _already_default(self, current: DesiredState, candidate: Candidate, name: str) -> Change:
        """Deploy what is the default already: only finish what an earlier call may have left."""
        served = current.find(candidate.version)
        if served is None or served.sha256 != candidate.sha256:
            self._plan(current, candidate, name)  # raises VersionTaken
            raise AssertionError("unreachable")
        place(candidate, self._target.store / served.archive)  # whatever lies there now
        check_served(self._management, candidate)
        self._steps.say(f"Version {candidate.version} is the default already.")
        write_desired_state(
            self._target.store, replace(current, versions=versions_to_keep(current, self._options.keep))
        )
        self._unregister_surplus()
        return Change(served, served)

    def _register_and_verify(self, candidate: Candidate, underway: PendingDeployment) -> None:
        """Everything before the switch: clients notice nothing of it."""
        store, version = self._target.store, candidate.version
        with self._steps.step("put it into the model store") as step:
            there = store / underway.archive
            as_checked = there.exists() and _digest(there) == candidate.sha256
            place(candidate, there)
            step.note(underway.archive)
        with self._steps.step("register it, and wait for its workers") as step:
            registered = version in [described.version for described in describe_served(self._management)[1]]
            if registered and not as_checked:  # of an interrupted deployment, from a file that has been lost since
                remove(self._management, version)
            if not registered or not as_checked:
                self._management.register(underway.archive)
            log, timeout_s = self._target.server_log, self._options.timeout_s
            described = wait_until_ready(self._management, version, timeout_s, log)
            step.note(f"{len(described.workers)} are READY")
        with self._steps.step("compare its answers with those recorded at export") as step:
            if _digest(there) != candidate.sha256:
                raise DeploymentFailed(f"{there} was changed while it was registered. Only `cifar` may write there")
            check_served(self._management, candidate)
            step.note(f"{check_parity(self._inference, version, candidate.reference)} images")

    def _switch(self, candidate: Candidate, before: str | None) -> None:
        """Make it the default, watch it, and wait until the one before has answered its last request."""
        version = candidate.version
        with self._steps.step("make it the default") as step:
            self._management.set_default(version)
            step.note(f"instead of {before}" if before else "the first")
        with self._steps.step("watch its first requests") as step:
            asked = watch(
                self._target.metrics_url,
                self._management,
                self._inference,
                version,
                candidate.reference,
                self._options.watch_s,
            )
            step.note(f"{asked} known images answered as recorded")
        if before is not None and before != version:
            with self._steps.step(f"wait for the last answers of {before}"):
                drain(self._management, before, self._options.drain_grace_s)

    def _record(self, current: DesiredState, candidate: Candidate, underway: PendingDeployment) -> ServedVersion:
        """Write down that the version is the default, and which others stay."""
        now = ServedVersion(
            candidate.version,
            underway.archive,
            candidate.sha256,
            deployed=datetime.now(UTC).isoformat(timespec="seconds"),
            source=self._options.source,
        )
        before = current.find(current.default) if current.default else None
        longer = (*current.history, *([before] if before else []))[-_HISTORY:]
        history = current.history[:-1] if self._back else longer
        others = tuple(served for served in current.versions if served.version != now.version)
        serving = DesiredState(now.version, (*others, now), history)
        write_desired_state(
            self._target.store, replace(serving, versions=versions_to_keep(serving, self._options.keep))
        )
        return now

    def _unregister_surplus(self) -> None:
        """Take away the versions that serving.json does not name; none of them is the default."""
        serving = read_desired_state(self._target.store)
        kept = [served.version for served in serving.versions] if serving else []
        for described in describe_served(self._management)[1]:
            if described.version not in kept:
                with self._steps.step(f"unregister {described.version}") as step:
                    drain(self._management, described.version, self._options.drain_grace_s)
                    remove(self._management, described.version)
                    step.note(f"{described.archive} stays in the model store")

    def _undo(self, current: DesiredState, before: str | None, forget: bool, error: BaseException) -> None:
        """Take back what was done; the failure that led here is reported, whatever comes of this."""
        version = current.underway.version if current.underway else "?"
        try:
            with self._steps.step(f"take version {version} back") as step:
                undo(self._target.store, self._management, current, before)
                if forget:
                    forget_desired_state(self._target.store)
                step.note(f"{before} serves as before" if before else "nothing is served, as before")
        except (CifarError, OSError) as second:
            error.add_note(f"Not all of it could be taken back: {second}")
            self._steps.say(
                f"Not all of version {version} could be taken back: {second} The next `cifar deploy` or `cifar "
                "rollback` does the rest."
            )


def versions_to_keep(current: DesiredState, keep: int) -> tuple[ServedVersion, ...]:
    """Return the registered versions that stay: the default, the defaults before it, the last first, then others."""
    registered = {served.version: served for served in current.versions}
    order = [current.default, *(served.version for served in reversed(current.history)), *reversed(registered)]
    names = [name for name in dict.fromkeys(order) if name in registered][: max(1, keep)]
    return tuple(served for served in current.versions if served.version in names)


def _without(current: DesiredState, underway: PendingDeployment) -> tuple[ServedVersion, ...]:
    """Return the versions that should run if the deployment came to nothing."""
    return tuple(
        served for served in current.versions if not (underway.registered and served.version == underway.version)
    )


def _inspect(copy: Path, archive: Path, version: str | None, public_key: Path | None) -> Candidate:
    """Check the copy of an archive, and give it another version where one is asked for."""
    if version is not None:
        check_version(version)
    candidate = inspect_archive(copy, archive, signed=public_key is not None)
    if version is None or version == candidate.version:
        return candidate
    renamed = copy.with_name(f"renamed-{copy.name}")
    try:
        normalise(copy, renamed, version)
    except (ArchiveRejected, OSError) as error:
        raise ArchiveRejected(f"{archive} cannot be made version {version}: {error}") from error
    if public_key is not None:
        try:
            verify_archive(renamed, public_key, archive)
        except SignatureRejected as error:
            raise SignatureRejected(
                f"{archive} as version {version} is another archive, which needs a signature of its own: set "
                f"{SIGNING_KEY}, or build and sign it under that version ({error})"
            ) from error
    sha256, size = digest_file(renamed), renamed.stat().st_size
    return replace(candidate, path=renamed, version=version, sha256=sha256, size=size)


def _choose_name(archive: Path, candidate: Candidate, store: Path) -> str:
    """Say what the archive is called in the model store: as it is, if it is there already."""
    own = f"{MODEL_NAME}-{candidate.version}.mar"
    inside = archive.resolve().parent == store.resolve() and candidate.path.name == archive.name
    return archive.name if inside and can_be_registered(archive.name) else own


def _describe(candidate: Candidate, archive: Path, options: DeployOptions) -> str:
    notes = ["as recorded" if candidate.recorded else f"no {archive.name}.sha256 to compare with"]
    notes += [] if options.public_key is None else ["signature verified"]
    notes += [] if candidate.not_run is None else [f"its network not run: {candidate.not_run}"]
    return (
        f"version {candidate.version}, {candidate.size / 1e6:.1f} MB, SHA-256 {candidate.sha256[:12]}…, "
        f"{', '.join(notes)}"
    )


def _digest(archive: Path) -> str:
    try:
        return digest_file(archive)
    except OSError as error:
        raise DeploymentFailed(f"{archive} cannot be read: {error.strerror}") from error
