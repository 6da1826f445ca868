"""What the options of several commands have in common."""

from typing import Annotated

import typer

from client.addresses import own_addresses
from client.urls import check_url


def check_url_option(url: str) -> str:
    """Return the URL as `check_url` does; typer tells the person what is wrong with it."""
    try:
        return check_url(url)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


# By default, every command means the server of this checkout: the addresses in its config.properties.
UrlOption = Annotated[
    str,
    typer.Option(
        default_factory=lambda: own_addresses().inference,
        callback=check_url_option,
        show_default="as in config.properties",
        help="Where the server listens.",
    ),
]
ManagementUrlOption = Annotated[
    str,
    typer.Option(
        default_factory=lambda: own_addresses().management,
        callback=check_url_option,
        show_default="as in config.properties",
        help="Where the management API listens: a URL, or unix:/folder/management.sock.",
    ),
]
