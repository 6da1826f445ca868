"""Base URLs of servers."""

import ipaddress
from urllib.parse import urlsplit


def check_url(url: str) -> str:
    """Return the base URL without a closing slash; ValueError if it is no http:// or https:// URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not a URL like http://127.0.0.1:8080")
    _ = parts.port  # raises ValueError unless it is a number that fits
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Tell whether a URL is of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, not an address
        return host == "localhost"
