"""Who can reach the management API, which decides which code runs: its owner alone, or who holds a token."""

import ipaddress

from cifar.common.addresses import Addresses
from cifar.common.errors import ConfigUnusable

_TOKENS = "disable_token_authorization=false"
_SOCKET = "management_address=unix:$$PWD$$/management.sock"
_NOWHERE = "grpc_management_address=127.255.255.255"


def check_guarded(addresses: Addresses) -> None:
    """Reject a configuration with which others could change what is served: users of this machine, pages in a browser.

    With tokens, every address will do. Without, the management API must be a Unix socket, and that of gRPC, which
    cannot be switched off, must listen where no TCP connection can be made to (docs/adr/0016).

    Raises:
        ConfigUnusable: says which setting to change.
    """
    if addresses.values.get("disable_token_authorization", "false").lower() != "true":
        return
    if addresses.management_socket is None:
        raise ConfigUnusable(
            f"management_address is {addresses.management}, without tokens: any web page in a browser on this machine "
            f"could change what is served. Turn tokens on ({_TOKENS}), or take a socket ({_SOCKET})"
        )
    host, _port = addresses.endpoints["grpc_management_port"]
    if not _takes_no_connection(host):
        raise ConfigUnusable(
            f"grpc_management_address is {host}, without tokens: every user of this machine could change what is "
            f"served. Turn tokens on ({_TOKENS}), or have it listen where no connection can be made to ({_NOWHERE})"
        )


def _takes_no_connection(host: str) -> bool:
    """Tell whether no TCP connection can be made to an address on which a server can listen: RFC 1122, 4.2.3.10."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_multicast or str(address) in ("127.255.255.255", "255.255.255.255")
