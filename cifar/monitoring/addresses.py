"""Where Alertmanager and the log of its messages listen: the addresses in their senders' configurations."""

import ipaddress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from cifar.common.errors import InvalidAddress

Endpoint = tuple[str, int]  # host, port


def parse_endpoint(text: str, where: str) -> Endpoint:
    """Take `host:port` apart; raises InvalidAddress, which says where it stands."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.netloc != text:
        raise InvalidAddress(f"{where} is {text!r}; expected an address like 127.0.0.1:9090")
    return host, port


def read_alertmanager(prometheus_config: Path) -> Endpoint:
    """Return the first Alertmanager that a prometheus.yml names, itself or in a file of targets.

    Raises:
        InvalidAddress: a file cannot be read, or none is named.
    """
    try:
        for manager in _load(prometheus_config)["alerting"]["alertmanagers"]:
            groups = list(manager.get("static_configs", ()))
            for files in manager.get("file_sd_configs", ()):
                for pattern in files["files"]:
                    # Prometheus looks beside its configuration.
                    for path in sorted(prometheus_config.parent.glob(pattern)):
                        groups += _load(path)
            for target in (target for group in groups for target in group["targets"]):
                return parse_endpoint(target, f"Alertmanager's target in {prometheus_config} or its files of targets")
    except (KeyError, TypeError, AttributeError):
        pass
    raise InvalidAddress(
        f"{prometheus_config} names no Alertmanager; expected alerting.alertmanagers with a target such as "
        "127.0.0.1:9093, as in targets/alertmanager.yml"
    )


def read_alert_log(alertmanager_config: Path) -> Endpoint | None:
    """Return where an alertmanager.yml sends messages on this machine; None where it sends none here.

    Raises:
        InvalidAddress: the file cannot be read, or the address is none.
    """
    try:
        receivers = _load(alertmanager_config)["receivers"]
        urls = [hook["url"] for receiver in receivers for hook in receiver.get("webhook_configs", ())]
        here = [url for url in urls if _is_loopback(urlsplit(url).hostname)]
    except (KeyError, TypeError, AttributeError, ValueError):
        raise InvalidAddress(f"{alertmanager_config} has no receivers; see: amtool check-config") from None
    return parse_endpoint(urlsplit(here[0]).netloc, f"A receiver's url in {alertmanager_config}") if here else None


def read_token_file(alertmanager_config: Path) -> Path | None:
    """Return the file with the token that Alertmanager shows to the log on this machine; None where it shows none.

    Raises:
        InvalidAddress: the file cannot be read.
    """
    try:
        receivers = _load(alertmanager_config)["receivers"]
        for hook in (hook for receiver in receivers for hook in receiver.get("webhook_configs", ())):
            if _is_loopback(urlsplit(hook["url"]).hostname):
                name = hook.get("http_config", {}).get("authorization", {}).get("credentials_file")
                # Alertmanager looks beside its configuration.
                return alertmanager_config.resolve().parent / name if name is not None else None
    except (KeyError, TypeError, AttributeError, ValueError):
        raise InvalidAddress(f"{alertmanager_config} has no receivers; see: amtool check-config") from None
    return None


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _load(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidAddress(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidAddress(f"{path} is no YAML: {error}") from None
