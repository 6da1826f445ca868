"""What the options of several commands have in common."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from client.addresses import own_addresses
from client.urls import check_url


def check_url_option(url: str) -> str:
    """Return the URL as `check_url` does; typer tells the person what is wrong with it."""
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
