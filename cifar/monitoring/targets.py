"""Keeps Prometheus's target where config.properties says that the metrics are."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from cifar.common.addresses import Addresses
from cifar.common.errors import ConfigUnusable
from cifar.common.files import atomic_write
from cifar.common.project import ROOT

TARGETS = ROOT / "targets" / "torchserve.yml"


def follow_metrics_address(addresses: Addresses, targets: Path = TARGETS) -> bool:
    """Write the metrics_address into the file of targets that prometheus.yml names, which Prometheus reads at once.

    Args:
        addresses: of this checkout's server.
        targets: the file; where it names several servers, it is the operator's own, and stays.

    Returns:
        Whether it was another address.

    Raises:
        ConfigUnusable: the metrics listen where Prometheus cannot scrape them.
    """
    if "metrics_address" not in addresses.endpoints:
        raise ConfigUnusable(f"metrics_address is {addresses.metrics}; Prometheus scrapes no sockets: give it a port")
    host_and_port = urlsplit(addresses.metrics).netloc
    text = targets.read_text(encoding="utf-8")
    written, found = re.subn(r'(?m)^- targets: \["[^",]*"\]', f'- targets: ["{host_and_port}"]', text)
    if found != 1 or written == text:
        return False
    with atomic_write(targets) as temporary:
        temporary.write_text(written, encoding="utf-8")
    return True
