"""A configuration for a server of a benchmark's or a test's own: another may be running on the usual ports."""

import re
import socket
from pathlib import Path

from cifar.common.project import CONFIG

_PORTS = ("8080", "8082", "7070", "7071")
_SOCKET = "unix:$$PWD$$/management.sock"


def write_free_config(folder: Path) -> Path:
    """Write config.properties with unused ports, and the management API's socket, into a folder."""
    text = CONFIG.read_text(encoding="utf-8")
    for port, free in zip(_PORTS, find_free_ports(len(_PORTS)), strict=True):
        text, found = re.subn(rf"([:=]){port}$", rf"\g<1>{free}", text, flags=re.MULTILINE)
        if found != 1:
            raise ValueError(f"{CONFIG} names the port {port} {found} times; expected once")
    if text.count(_SOCKET) != 1:
        raise ValueError(f"{CONFIG} has no {_SOCKET}; fix {Path(__file__).name}")
    config = folder / "config.properties"
    config.write_text(text.replace(_SOCKET, f"unix:{folder.resolve()}/management.sock"), encoding="utf-8")
    return config


def find_free_ports(count: int) -> list[int]:
    """Return unused ports; all are held open at once, so that they differ."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def find_free_port() -> int:
    """Return an unused port."""
    return find_free_ports(1)[0]
