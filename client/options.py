"""What the options of several commands have in common."""

import typer

from client.urls import check_url


def check_url_option(url: str) -> str:
    """Return the URL as `check_url` does; typer tells the person what is wrong with it."""
    try:
        return check_url(url)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
