"""`cifar archive`."""

from pathlib import Path
from typing import Annotated

import typer

from cifar.archives.build import build_archive
from cifar.archives.inspection import check_version
from cifar.common.console import console
from cifar.common.errors import ArchiveRejected
from cifar.common.project import HANDLER, MODEL_NAME, MODEL_STORE
from cifar.server.desired_state import store_lock
from cifar.server.model_store import check_replaceable

_LOCK_TIMEOUT_S = 300.0  # longer than a deployment takes


def archive(
    model: Annotated[Path, typer.Argument(help="The TorchScript file, as `python -m training.export` writes it.")],
    version: Annotated[str, typer.Option(help="The version, for the manifest.")],
    output: Annotated[
        Path | None, typer.Option(help="The archive to write.", show_default="model_store/cifar-VERSION.mar")
    ] = None,
    handler: Annotated[Path, typer.Option(help="The folder of the handler.", file_okay=False)] = HANDLER,
) -> None:
    """Build an archive: the same bytes for the same files, with its SHA-256 beside it, signed where there is a key."""
    check_version(version)
    place = output or MODEL_STORE / f"{MODEL_NAME}-{version}.mar"
    # From the look at what is deployed until the file is there, nothing may be deployed.
    with store_lock(place.parent, _LOCK_TIMEOUT_S) as mine:
        if not mine:
            raise ArchiveRejected(f"Another process is changing what is served from {place.parent}; wait for its end")
        digest = build_archive(model, version, place, handler, lambda digest: check_replaceable(place, digest))
    console.print(f"{place}: SHA-256 {digest}", highlight=False, soft_wrap=True)
