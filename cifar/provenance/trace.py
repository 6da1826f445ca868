"""From an archive back to run, commit, data and parameters."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar.common.addresses import own_addresses
from cifar.common.project import MODEL_STORE, ROOT
from cifar.provenance.archive import TracedArchive
from cifar.provenance.links import Evidence, Link, check_links, list_parameters
from cifar.provenance.sources import ask_mlflow, ask_server, find_weights


@dataclass(frozen=True)
class Trace:
    """Where an archive comes from, link by link.

    Attributes:
        archive: the file.
        version: as its manifest says; None where that cannot be read.
        links: the chain.
        parameters: how the network was trained, `section.key` to value; empty where no source here knows.
    """

    archive: str
    version: str | None
    links: tuple[Link, ...]
    parameters: dict[str, Any]

    @property
    def broken(self) -> list[Link]:
        """The links that do not hold."""
        return [link for link in self.links if link.holds is False]


def trace(
    archive: TracedArchive,
    store: Path = MODEL_STORE,
    checkout: Path = ROOT,
    management_url: str | None = None,
) -> Trace:
    """Check every link between an archive and what it was made of; changes nothing, runs no code of the archive.

    Args:
        archive: from find_version, find_digest or read_archive (cifar/provenance/archive.py).
        store: the model store, which remembers what was deployed.
        checkout: of the repository, for its commits and for the weights in it.
        management_url: of the server that may be running; None: of this checkout's.

    Raises:
        InvalidStateFile: the store's serving.json cannot be read.
    """
    management_url = management_url or own_addresses().management
    evidence = Evidence(
        archive=archive,
        store=store,
        checkout=checkout,
        weights=find_weights(checkout, archive),
        tracked=ask_mlflow(archive),
        server=ask_server(management_url, archive.version) if archive.version else "the archive cannot be read",
        server_url=management_url,
    )
    return Trace(str(archive.path), archive.version, check_links(evidence), list_parameters(evidence))
