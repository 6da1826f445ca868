"""Where TorchServe listens: the addresses in config.properties, the one place where they are set."""

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from cifar.common.errors import ConfigUnusable
from cifar.common.project import CONFIG, ROOT, check_checkout
from cifar.common.urls import find_socket

_DEFAULTS = {
    "inference_address": "http://127.0.0.1:8080",
    "management_address": "http://127.0.0.1:8081",
    "metrics_address": "http://127.0.0.1:8082",
    "grpc_inference_address": "127.0.0.1",
    "grpc_inference_port": "7070",
    "grpc_management_address": "127.0.0.1",
    "grpc_management_port": "7071",
}
# What TorchServe takes for an address without a port, by scheme.
_DEFAULT_PORTS = {
    "inference_address": {"http": 80, "https": 443},
    "management_address": {"http": 8081, "https": 8444},
    "metrics_address": {"http": 8082, "https": 8445},
}
_EXAMPLE = "expected an address like http://127.0.0.1:8080 or unix:/folder/management.sock"


@dataclass(frozen=True)
class Addresses:
    """Where TorchServe listens.

    Attributes:
        values: what config.properties says, by its keys; TorchServe's defaults for what it leaves out.
    """

    values: dict[str, str]

    @property
    def inference(self) -> str:
        """Base URL for predictions, as a client reaches it."""
        return self._url("inference_address")

    @property
    def management(self) -> str:
        """Base URL of the management API, or `unix:` and the path of its socket."""
        return self._url("management_address")

    @property
    def metrics(self) -> str:
        """Base URL of the metrics."""
        return self._url("metrics_address")

    @property
    def management_socket(self) -> Path | None:
        """The Unix socket of the management API; None where it listens on TCP."""
        return find_socket(self.management)

    @cached_property
    def endpoints(self) -> dict[str, tuple[str, int]]:
        """Host and port of each TCP address, by the key in config.properties."""
        found = {
            key: _host_and_port(key, address)
            for key, address in self.values.items()
            if key in _DEFAULT_PORTS and not _is_socket(key, address)
        }
        for kind in ("inference", "management"):
            port = f"grpc_{kind}_port"
            found[port] = (self.values[f"grpc_{kind}_address"], _port(port, self.values[port]))
        return found

    def _url(self, key: str) -> str:
        if key not in self.endpoints:
            return self.values[key]
        host, port = self.endpoints[key]
        scheme = urlsplit(self.values[key]).scheme
        return f"{scheme}://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104 # a client's view


def read_addresses(config: Path = CONFIG) -> Addresses:
    """Read them from a properties file; what it leaves out has TorchServe's default.

    Raises:
        ConfigUnusable: the file is missing, or an address is none that TorchServe can listen on.
    """
    addresses = Addresses(_DEFAULTS | {key: _expand(key, value) for key, value in read_properties(config).items()})
    _ = addresses.endpoints  # checks each
    return addresses


def own_addresses() -> Addresses:
    """Return those of this checkout's server; TorchServe's defaults where the code is installed without its checkout.

    Raises:
        ConfigUnusable: as of read_addresses.
    """
    return read_addresses() if CONFIG.exists() else Addresses(_DEFAULTS)


def read_properties(config: Path) -> dict[str, str]:
    """Read `key=value` lines.

    Raises:
        ConfigUnusable: the file cannot be read.
        NoCheckout: it is the checkout's, and there is none.
    """
    if config == CONFIG:
        check_checkout("This, without --config,")
    try:
        lines = config.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigUnusable(f"{config} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith(("#", "!")))
    return {key.strip(): value.strip() for key, value in pairs}


def _expand(key: str, value: str) -> str:
    """Put in variables of the environment as TorchServe does; `$$PWD$$` is the checkout, as `cifar up` starts it."""
    known = os.environ | {"PWD": str(ROOT)}
    if not key.endswith("_address"):
        return value
    try:
        return re.sub(r"\$\$(\w+)\$\$", lambda name: known[name[1]], value)
    except KeyError as error:
        raise ConfigUnusable(f"{key} is {value!r}, and the environment has no variable {error}") from None


def _is_socket(key: str, address: str) -> bool:
    socket = find_socket(address)
    if socket is not None and not (socket.is_absolute() and socket.name):
        raise ConfigUnusable(f"{key} is {address!r}; expected the whole path of a socket, unix:/folder/management.sock")
    return socket is not None


def _host_and_port(key: str, url: str) -> tuple[str, int]:
    if "[" in url or url.count(":") > 2:
        raise ConfigUnusable(
            f"{key} is {url!r}; TorchServe takes no IPv6 address there. Give an IPv4 address or a host name, and let a "
            "proxy in front listen on IPv6"
        )
    try:
        parts = urlsplit(url)
        port = _DEFAULT_PORTS[key][parts.scheme] if parts.port is None else parts.port
        if not parts.hostname or not 0 < port < 65536 or parts.path or parts.query or "@" in parts.netloc:
            raise ValueError
    except (ValueError, KeyError):
        raise ConfigUnusable(f"{key} is {url!r}; {_EXAMPLE}, without anything behind it") from None
    return parts.hostname, port


def _port(key: str, text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ConfigUnusable(f"{key} is {text!r}; expected a port number from 1 to 65535")
    return int(text)
