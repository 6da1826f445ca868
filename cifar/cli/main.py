"""The `cifar` command."""

import sys
from importlib import metadata
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from cifar.cli.archive import archive
from cifar.cli.deployment import deploy, follow, rollback, scale, undeploy
from cifar.cli.monitor import monitor
from cifar.cli.predict import predict
from cifar.cli.server import down, ready, up
from cifar.cli.status import status
from cifar.cli.trace import trace
from cifar.common.console import accept_any_text
from cifar.common.errors import CifarError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # they would print whole images
)
for _command in (up, ready, down, predict, archive, deploy, rollback, undeploy, scale, follow, status, trace, monitor):
    app.command()(_command)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(metadata.version("cifar-torchserve"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """CIFAR-10 on TorchServe."""


def main() -> None:
    """Run the command; errors that a person can fix become one red message instead of a traceback."""
    accept_any_text()
    try:
        app()
    except (CifarError, OSError) as error:  # OSError: a full disk, a folder that cannot be written
        Console(stderr=True).print(Text(str(error), style="red"), soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
