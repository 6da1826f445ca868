"""`cifar deploy`, `rollback`, `undeploy` and `scale`."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from cifar.archives.signing import required_key
from cifar.cli.options import ConfigOption, RunDirOption, StoreOption
from cifar.common.addresses import read_addresses
from cifar.common.project import CONFIG, MODEL_STORE, RUN_DIR
from cifar.deployment import deploy as deploying
from cifar.deployment import follow as following
from cifar.deployment import rollback as rolling_back
from cifar.deployment import undeploy as undeploying
from cifar.deployment.deploy import DeployOptions
from cifar.deployment.promote import from_registry, promote, record, try_tag
from cifar.deployment.steps import Steps
from cifar.deployment.target import Target
from cifar.server.launch import LOG_NAME

KeepOption = Annotated[int, typer.Option(min=1, help="Versions that stay registered, the new one among them.")]
WatchOption = Annotated[float, typer.Option(min=0, help="Seconds for which the new default is watched.")]
TimeoutOption = Annotated[float, typer.Option(min=1, help="Seconds in which its workers must be READY.")]

_OPTIONS = DeployOptions()


def deploy(
    what: Annotated[
        str,
        typer.Argument(metavar="ARCHIVE", help="An archive (*.mar), models:/cifar@ALIAS or models:/cifar/VERSION."),
    ],
    version: Annotated[str | None, typer.Option(help="Override the version in the archive.")] = None,
    keep: KeepOption = _OPTIONS.keep,
    watch_s: WatchOption = _OPTIONS.watch_s,
    timeout_s: TimeoutOption = _OPTIONS.timeout_s,
    config: ConfigOption = CONFIG,
    model_store: StoreOption = MODEL_STORE,
    run_dir: RunDirOption = RUN_DIR,
) -> None:
    """Bring a version into service without losing a request, or leave everything as it was."""
    _end_as_by_ctrl_c()
    steps, options = Steps(), _read_options(keep, watch_s, timeout_s)
    target = find_target(config, model_store, run_dir)
    if what.startswith("models:"):
        change = promote(what, target, steps, options, version)
    else:
        change = deploying.deploy(Path(what), target, steps, options, version)
        record(change, steps)
    steps.say(f"Version {change.now.version} is deployed.")


def rollback(
    keep: KeepOption = _OPTIONS.keep,
    watch_s: WatchOption = _OPTIONS.watch_s,
    timeout_s: TimeoutOption = _OPTIONS.timeout_s,
    config: ConfigOption = CONFIG,
    model_store: StoreOption = MODEL_STORE,
    run_dir: RunDirOption = RUN_DIR,
) -> None:
    """Make the default before the default again: at once where its workers are there."""
    _end_as_by_ctrl_c()
    steps, options = Steps(), _read_options(keep, watch_s, timeout_s)
    change = rolling_back.rollback(find_target(config, model_store, run_dir), steps, options)
    record(change, steps, back=True)
    steps.say(f"Version {change.now.version} is the default again.")


def undeploy(
    version: Annotated[str, typer.Argument(help="The version to take away; not the default.")],
    config: ConfigOption = CONFIG,
    model_store: StoreOption = MODEL_STORE,
    run_dir: RunDirOption = RUN_DIR,
) -> None:
    """Unregister a version after its last answers; its archive stays in the model store."""
    steps = Steps()
    gone = undeploying.undeploy(version, find_target(config, model_store, run_dir), steps, _OPTIONS)
    if from_registry(gone):
        try_tag(gone.source or "", "undeployed", "", steps)


def follow(
    uri: Annotated[
        str, typer.Argument(metavar="URI", help="models:/cifar@ALIAS, in the store of MLFLOW_TRACKING_URI.")
    ],
    every_s: Annotated[float, typer.Option(min=1, help="Polling interval in seconds.")] = 30,
    keep: KeepOption = _OPTIONS.keep,
    watch_s: WatchOption = _OPTIONS.watch_s,
    timeout_s: TimeoutOption = _OPTIONS.timeout_s,
    config: ConfigOption = CONFIG,
    model_store: StoreOption = MODEL_STORE,
    run_dir: RunDirOption = RUN_DIR,
) -> None:
    """Deploy the version that an alias names, now and whenever it moves; until Ctrl-C or SIGTERM."""
    options, end = _read_options(keep, watch_s, timeout_s), threading.Event()
    for kind in (signal.SIGINT, signal.SIGTERM):  # a deployment that has begun comes to its end first
        signal.signal(kind, lambda *_: end.set())
    target = find_target(config, model_store, run_dir)
    following.follow(uri, target, Steps(), options, wait=lambda: not end.wait(every_s))


def scale(
    version: Annotated[str, typer.Argument(help="The version.")],
    workers: Annotated[int, typer.Argument(min=1, help="Its worker processes. Fewer: requests in them may get a 500.")],
    timeout_s: TimeoutOption = _OPTIONS.timeout_s,
    config: ConfigOption = CONFIG,
    model_store: StoreOption = MODEL_STORE,
    run_dir: RunDirOption = RUN_DIR,
) -> None:
    """Set the number of workers of a version, now and after every restart."""
    options = DeployOptions(timeout_s=timeout_s)
    undeploying.scale(version, workers, find_target(config, model_store, run_dir), Steps(), options)


def _end_as_by_ctrl_c() -> None:
    """Let SIGTERM do what Ctrl-C does: what was begun is taken back."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _read_options(keep: int, watch_s: float, timeout_s: float) -> DeployOptions:
    """Add the key that the environment names; raises SignatureRejected where it names none."""
    return DeployOptions(keep, watch_s, timeout_s, public_key=required_key())


def find_target(config: Path, model_store: Path, run_dir: Path) -> Target:
    """Return the server that these options mean; raises ConfigUnusable."""
    addresses = read_addresses(config)
    server_log = run_dir / "logs" / LOG_NAME
    key_file = run_dir / "key_file.json"
    return Target(model_store, addresses.management, addresses.inference, addresses.metrics, server_log, key_file)
