"""Base URLs of servers: http://, https://, or `unix:` and the path of a Unix socket, as in config.properties."""

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit


def check_url(url: str) -> str:
    """Return the base URL without a closing slash; ValueError if it is neither http://, https:// nor unix:."""
    socket = find_socket(url)
    if socket is not None:
        return f"unix:{socket.absolute()}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not a URL like http://127.0.0.1:8080 or unix:/folder/management.sock")
    _ = parts.port  # raises ValueError unless it is a number that fits
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Tell whether a URL is of this machine."""
    if find_socket(url) is not None:
        return True
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
        return address.is_loopback or address.is_unspecified  # to 0.0.0.0, Linux connects on this machine
    except ValueError:  # a name, not an address
        return host == "localhost"


def find_socket(url: str) -> Path | None:
    """Return the path of the Unix socket that `unix:/folder/name.sock` names; None for a URL."""
    return Path(url[len("unix:") :]) if url.lower().startswith("unix:") else None
