"""`cifar deploy`, `rollback`, `undeploy` and `scale`."""

from pathlib import Path
from typing import Annotated

import typer

from deployment import deploy as deploying
from deployment import rollback as rolling_back
from deployment import undeploy as undeploying
from deployment.deploy import Options
from deployment.steps import Steps
from deployment.target import Target
from launcher.config import read_addresses
from launcher.server import CONFIG, MODEL_STORE, RUN_DIR

ConfigOption = Annotated[Path, typer.Option(help="The server's config.properties, for its addresses.", dir_okay=False)]
StoreOption = Annotated[Path, typer.Option(help="The server's model store.", file_okay=False)]
RunDirOption = Annotated[
    Path, typer.Option(help="Where `cifar up` keeps the log, which says why workers do not start.")
]
KeepOption = Annotated[int, typer.Option(min=1, help="Versions that stay registered, the new one among them.")]
WatchOption = Annotated[float, typer.Option(min=0, help="Seconds for which the new default is watched.")]
TimeoutOption = Annotated[float, typer.Option(min=1, help="Seconds in which its workers must be READY.")]

_OPTIONS = Options()


def deploy(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="An archive, such as model_store/cifar-2.0.mar.")],
    version: Annotated[str | None, typer.Option(help="Serve it as this version, not as its manifest's.")] = None,
    keep: KeepOption = _OPTIONS.keep,
    watch_s: WatchOption = _OPTIONS.watch_s,
    timeout_s: TimeoutOption = _OPTIONS.timeout_s,
    config: ConfigOption = CONFIG,
    model_store: StoreOption = MODEL_STORE,
    run_dir: RunDirOption = RUN_DIR,
) -> None:
    """Bring a version into service without losing a request, or leave everything as it was."""
    steps, options = Steps(), Options(keep, watch_s, timeout_s)
    change = deploying.deploy(archive, _find_target(config, model_store, run_dir), steps, options, version)
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
    steps, options = Steps(), Options(keep, watch_s, timeout_s)
    change = rolling_back.rollback(_find_target(config, model_store, run_dir), steps, options)
    steps.say(f"Version {change.now.version} is the default again.")


def undeploy(
    version: Annotated[str, typer.Argument(help="The version to take away; not the default.")],
    config: ConfigOption = CONFIG,
    model_store: StoreOption = MODEL_STORE,
    run_dir: RunDirOption = RUN_DIR,
) -> None:
    """Unregister a version after its last answers; its archive stays in the model store."""
    undeploying.undeploy(version, _find_target(config, model_store, run_dir), Steps(), _OPTIONS)


def scale(
    version: Annotated[str, typer.Argument(help="The version.")],
    workers: Annotated[int, typer.Argument(min=1, help="Its worker processes. Fewer: requests in them may get a 500.")],
    timeout_s: TimeoutOption = _OPTIONS.timeout_s,
    config: ConfigOption = CONFIG,
    model_store: StoreOption = MODEL_STORE,
    run_dir: RunDirOption = RUN_DIR,
) -> None:
    """Give a version so many workers, now and after every restart."""
    options = Options(timeout_s=timeout_s)
    undeploying.scale(version, workers, _find_target(config, model_store, run_dir), Steps(), options)


def _find_target(config: Path, model_store: Path, run_dir: Path) -> Target:
    addresses = read_addresses(config)
    console_log = run_dir / "logs" / "console.log"
    return Target(model_store, addresses.management, addresses.inference, addresses.metrics, console_log)
