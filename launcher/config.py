"""The addresses in config.properties."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from launcher.errors import ConfigUnusable

_DEFAULTS = {
    "inference_address": "http://127.0.0.1:8080",
    "management_address": "http://127.0.0.1:8081",
    "metrics_address": "http://127.0.0.1:8082",
    "grpc_inference_address": "127.0.0.1",
    "grpc_inference_port": "7070",
    "grpc_management_address": "127.0.0.1",
    "grpc_management_port": "7071",
}


@dataclass(frozen=True)
class Addresses:
    """Where TorchServe listens."""

    inference: str  # URLs
    management: str
    metrics: str
    grpc_inference: tuple[str, int]  # host, port
    grpc_management: tuple[str, int]

    @property
    def endpoints(self) -> dict[str, tuple[str, int]]:
        """Host and port of each, by the key in config.properties; HTTP addresses that are the same stand once."""
        urls = {
            "inference_address": self.inference,
            "management_address": self.management,
            "metrics_address": self.metrics,
        }
        found = {key: _host_and_port(key, url) for key, url in urls.items()}
        found |= {"grpc_inference_port": self.grpc_inference, "grpc_management_port": self.grpc_management}
        return found


def read_addresses(config: Path) -> Addresses:
    """Read them from a properties file; what it leaves out has TorchServe's default.

    Raises:
        ConfigUnusable: the file is missing, or an address is none that a client can reach over HTTP.
    """
    values = _DEFAULTS | read_properties(config)
    addresses = Addresses(
        inference=values["inference_address"].rstrip("/"),
        management=values["management_address"].rstrip("/"),
        metrics=values["metrics_address"].rstrip("/"),
        grpc_inference=(values["grpc_inference_address"], _port(values, "grpc_inference_port")),
        grpc_management=(values["grpc_management_address"], _port(values, "grpc_management_port")),
    )
    _ = addresses.endpoints  # checks each
    return addresses


def read_properties(config: Path) -> dict[str, str]:
    """Read `key=value` lines; raises ConfigUnusable where the file cannot be read."""
    try:
        lines = config.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigUnusable(f"{config} cannot be read: {error.strerror}") from None
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith(("#", "!")))
    return {key.strip(): value.strip() for key, value in pairs}


def _host_and_port(key: str, url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        raise ConfigUnusable(f"{key} is {url!r}; expected an address like http://127.0.0.1:8080") from None
    if not parts.hostname:
        raise ConfigUnusable(f"{key} is {url!r}, without a host; expected an address like http://127.0.0.1:8080")
    return parts.hostname, port


def _port(values: dict[str, str], key: str) -> int:
    text = values[key]
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ConfigUnusable(f"{key} is {text!r}; expected a port number from 1 to 65535")
    return int(text)
