"""The faults: how each is injected, which alerts must fire, and how the service recovers. One function each."""

import io
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cifar.common.errors import CifarError
from cifar.deployment.deploy import DeployOptions, deploy
from cifar.deployment.rollback import rollback
from cifar.deployment.steps import Step, Steps
from cifar.deployment.undeploy import scale
from cifar.server.desired_state import read_desired_state
from drill.archives import make_copy, make_slow, make_wrong
from drill.sandbox import DrillFailed, Sandbox, wait_until
from drill.traffic import Images

_SWITCH = "make it the default"  # the step of a deployment
_READY_S = 120.0


@dataclass(frozen=True)
class Inputs:
    """What scenarios need.

    Attributes:
        weights: of the network that is served.
        images: clean images, (N, 32, 32, 3) uint8.
        noisy: the same, corrupted.
    """

    weights: Path
    images: Images
    noisy: Images


@dataclass
class Fault:
    """A fault that lasts until its block ends; `since`: when it began, seconds since 1970."""

    since: float


@dataclass(frozen=True)
class Scenario:
    """One thing that breaks.

    Attributes:
        name: of the option --only.
        title: what happens.
        alerts: those that must reach the webhook; no other may.
        fault: injects it on entry, recovers from it on exit.
        aftermath: alerts that come after the recovery, because those that inhibited them have ended.
    """

    name: str
    title: str
    alerts: frozenset[str]
    fault: Callable[[Sandbox, Inputs], AbstractContextManager[Fault]]
    aftermath: frozenset[str] = frozenset()


@contextmanager
def _kill_server(sandbox: Sandbox, inputs: Inputs) -> Iterator[Fault]:
    process = sandbox.server.process
    if process is None:
        raise DrillFailed("TorchServe does not run")
    process.kill()
    yield Fault(time.time())
    sandbox.server.start()


@contextmanager
def _kill_workers(sandbox: Sandbox, inputs: Inputs) -> Iterator[Fault]:
    """Kill a worker whenever another is ready, so that requests still get their answers."""
    with _meanwhile(lambda: _kill_a_worker(sandbox), every_s=4.0):
        yield Fault(time.time())
    _wait_for_workers(sandbox)


def _kill_a_worker(sandbox: Sandbox) -> None:
    with sandbox.manage() as management:
        ready = [worker.pid for worker in management.describe("1.0").workers if worker.ready and worker.pid]
    if len(ready) > 1:
        os.kill(ready[0], signal.SIGKILL)


@contextmanager
def _take_workers(sandbox: Sandbox, inputs: Inputs) -> Iterator[Fault]:
    with sandbox.manage() as management:
        workers = len(management.describe("1.0").workers)
        management.scale("1.0", 0)
        yield Fault(time.time())
        management.scale("1.0", workers)
    _wait_for_workers(sandbox)


@contextmanager
def _deploy_slow(sandbox: Sandbox, inputs: Inputs) -> Iterator[Fault]:
    with _deployed(sandbox, make_slow(inputs.weights, "1.1", _folder(sandbox, "slow"))) as fault:
        yield fault


@contextmanager
def _deploy_wrong(sandbox: Sandbox, inputs: Inputs) -> Iterator[Fault]:
    with _deployed(sandbox, make_wrong(inputs.weights, "1.2", _folder(sandbox, "wrong"))) as fault:
        yield fault


@contextmanager
def _register_by_hand(sandbox: Sandbox, inputs: Inputs) -> Iterator[Fault]:
    archive = make_copy(inputs.weights, "6.6", _folder(sandbox, "copy"))
    shutil.copy(archive, sandbox.server.model_store)
    with sandbox.manage() as management:
        if (
            read_desired_state(sandbox.server.model_store) is None
        ):  # nothing was deployed yet: then every version is as good
            workers = len(management.describe("1.0").workers)
            scale("1.0", workers, sandbox.target, _Watched(), DeployOptions())
        management.register(archive.name)
        wait_until(lambda: management.describe("6.6").ready, _READY_S)
        yield Fault(time.time())
        management.unregister("6.6")
    (sandbox.server.model_store / archive.name).unlink(missing_ok=True)


@contextmanager
def _send_bad_bodies(sandbox: Sandbox, inputs: Inputs) -> Iterator[Fault]:
    sandbox.traffic.bad = 0.3
    yield Fault(time.time())
    sandbox.traffic.bad = 0.0


@contextmanager
def _send_noise(sandbox: Sandbox, inputs: Inputs) -> Iterator[Fault]:
    sandbox.traffic.images = inputs.noisy
    yield Fault(time.time())
    sandbox.traffic.images = inputs.images


@contextmanager
def _hang(sandbox: Sandbox, inputs: Inputs) -> Iterator[Fault]:
    """Stop the server for seconds, again and again: a scrape waits at most one."""
    process = sandbox.server.process
    if process is None:
        raise DrillFailed("TorchServe does not run")

    def stop_and_go() -> None:
        process.suspend()
        time.sleep(2.5)
        process.resume()

    since = time.time()
    try:
        with _meanwhile(stop_and_go, every_s=3.0):
            yield Fault(since)
    finally:
        process.resume()


SCENARIOS = (
    Scenario("server", "Java is killed", frozenset({"CifarServerDown"}), _kill_server),
    Scenario("scrapes", "the server hangs for 2.5 s, again and again", frozenset({"CifarScrapesFail"}), _hang),
    Scenario(
        "workers", "a worker is killed, whenever another is ready", frozenset({"CifarWorkersRestart"}), _kill_workers
    ),
    Scenario(
        "no-workers",
        "the version is scaled to no worker",
        frozenset({"CifarNoLiveWorker", "CifarErrorBudgetBurnsFast"}),
        _take_workers,
        frozenset({"CifarErrorBudgetBurnsSlowly"}),
    ),
    Scenario(
        "bad-inputs", "30 % of the bodies are no images", frozenset({"CifarManyInputsRejected"}), _send_bad_bodies
    ),
    Scenario(
        "noise",
        "all images are noisy (gaussian_noise, severity 5)",
        frozenset({"CifarInputDrift", "CifarPredictionMixShifted", "CifarConfidenceFallen"}),
        _send_noise,
    ),
    Scenario(
        "slow",
        "a version is deployed whose network takes 150 ms an image",
        frozenset({"CifarLatencyBudgetBurnsFast", "CifarQueueGrows"}),
        _deploy_slow,
    ),
    Scenario(
        "wrong",
        "a version is deployed that takes every image for an airplane",
        frozenset({"CifarPredictionMixShifted", "CifarVersionsDisagree"}),
        _deploy_wrong,
    ),
    Scenario(
        "undeployed",
        "a version is registered outside `cifar deploy`",
        frozenset({"CifarUndeployedVersion"}),
        _register_by_hand,
    ),
)


class _Watched(Steps):
    """Prints nothing, and remembers when the new version became the default."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.switched = time.time()

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        with super().step(name) as step:
            yield step
        if name == _SWITCH:
            self.switched = time.time()


@contextmanager
def _deployed(sandbox: Sandbox, archive: Path) -> Iterator[Fault]:
    steps, options = _Watched(), DeployOptions()
    deploy(archive, sandbox.target, steps, options)
    yield Fault(steps.switched)
    rollback(sandbox.target, steps, options)


def _folder(sandbox: Sandbox, name: str) -> Path:
    folder = sandbox.folder / name
    folder.mkdir()
    return folder


def _wait_for_workers(sandbox: Sandbox) -> None:
    with sandbox.manage() as management:
        if not wait_until(lambda: management.describe("1.0").ready, _READY_S):
            raise DrillFailed(f"version 1.0 has not got its workers back within {_READY_S:.0f} s")


@contextmanager
def _meanwhile(act: Callable[[], None], every_s: float) -> Iterator[None]:
    """Act again and again until the block ends."""
    end = threading.Event()

    def repeat() -> None:
        while not end.is_set():
            with suppress(CifarError, ProcessLookupError):  # the worker, or the server, has just ended by itself
                act()
            end.wait(every_s)

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
