"""A configuration for a server of a benchmark's own: another may be running on the usual ports."""

import re
import socket
from pathlib import Path

from launcher.server import CONFIG


def write_free_config(folder: Path) -> Path:
    """Write config.properties with ports that nobody uses into a folder."""
    text = CONFIG.read_text(encoding="utf-8")
    for port in ("8080", "8081", "8082", "7070", "7071"):
        text = re.sub(rf"([:=]){port}$", rf"\g<1>{find_free_port()}", text, flags=re.MULTILINE)
    config = folder / "config.properties"
    config.write_text(text, encoding="utf-8")
    return config


def find_free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
