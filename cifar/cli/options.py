"""Options that several commands have."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cifar.common.addresses import own_addresses
from cifar.common.urls import check_url


def check_url_option(url: str) -> str:
    """Return the URL as `check_url` does; typer shows what is wrong with it."""
    try:
        return check_url(url)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _url_option(find: Callable[[], str], text: str) -> Any:
    """By default, every command means the server of this checkout: the addresses in its config.properties."""
    shown = "as in config.properties"
    return typer.Option(default_factory=find, callback=check_url_option, show_default=shown, help=text)


UrlOption = Annotated[str, _url_option(lambda: own_addresses().inference, "Where the server listens.")]
ManagementUrlOption = Annotated[
    str,
    _url_option(
        lambda: own_addresses().management,
        "Where the management API listens: a URL, or unix:/folder/management.sock.",
    ),
]
ConfigOption = Annotated[
    Path, typer.Option(help="The server's config.properties, which has its addresses.", dir_okay=False)
]
StoreOption = Annotated[
    Path, typer.Option(help="The server's model store: the folder of its archives.", file_okay=False)
]
RunDirOption = Annotated[
    Path, typer.Option(help="Where `cifar up` keeps logs and the state of the process; `down` removes it.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
