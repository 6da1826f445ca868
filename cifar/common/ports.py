"""Says who listens on a port, before a server fails on it in its own words."""

import errno
import socket
from collections.abc import Mapping

import psutil

from cifar.common.errors import PortTaken

_ADVICE = (
    "Stop what holds it (`make down` if it is a TorchServe of this checkout), or change the address in "
    "config.properties."
)


def check_ports_free(endpoints: Mapping[str, tuple[str, int]], advice: str = _ADVICE) -> None:
    """Reject to go on where another process listens.

    Args:
        endpoints: host and port by the key in config.properties, or by another name of what wants it.
        advice: what to do, a sentence.

    Raises:
        PortTaken: names each port that is taken, the process that holds it, and the key to change.
    """
    taken = [
        f"{host}:{port} ({key}) is held by {_describe_holder(port)}"
        for key, (host, port) in endpoints.items()
        if _is_taken(host, port)
    ]
    if taken:
        raise PortTaken(f"{'; '.join(taken)}. {advice}")


def _is_taken(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: connections that a server before us has closed do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
            raise PortTaken(f"{host}:{port} cannot be listened on: {error.strerror}") from error
    return False


def _describe_holder(port: int) -> str:
    unknown = "a process of another user"
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS, without root
        return unknown
    for connection in connections:
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        if listens and connection.pid is not None:
            try:
                process = psutil.Process(connection.pid)
                command = " ".join(process.cmdline())
                return f"process {process.pid} ({command[:120] or process.name()})"
            except psutil.Error:
                return f"process {connection.pid}"
    return unknown
