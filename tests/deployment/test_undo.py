"""What an interrupted deployment has put into the store goes, and nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cifar.common.errors import InvalidStateFile, ModelNotFound, ServerUnreachable
from cifar.common.files import digest_file
from cifar.deployment.undo import remembered_first, undo
from cifar.server.desired_state import (
    DesiredState,
    PendingDeployment,
    ServedVersion,
    read_desired_state,
    write_desired_state,
)

ONE = ServedVersion("1.0", "cifar-1.0.mar", "a" * 64)


class EmptyServer:
    """A management API that has no model."""

    def describe(self, version: str | None = None) -> Any:
        raise ModelNotFound(404, "ModelNotFoundException", "none")

    def unregister(self, version: str) -> None:
        raise ModelNotFound(404, "ModelNotFoundException", "none")


@pytest.fixture
def store(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "model_store"
    folder.mkdir()
    for name in ("cifar-2.0.mar", "cifar-2.0.mar.sha256", "../outside"):
        (folder / name).write_text(name)
    yield folder
    assert (tmp_path / "outside").exists()


def take_back(store: Path, archive: str, sha256: str) -> None:
    current = DesiredState("1.0", (ONE,), (), PendingDeployment("2.0", archive, sha256, copied=True, registered=True))
    undo(store, EmptyServer(), current, "1.0")  # type: ignore[arg-type]


def test_what_was_copied_goes_with_its_digest(store):
    take_back(store, "cifar-2.0.mar", digest_file(store / "cifar-2.0.mar"))
    assert sorted(path.name for path in store.iterdir()) == ["deployed.json", "serving.json"]
    assert read_desired_state(store) == DesiredState("1.0", (ONE,))


def test_an_archive_of_other_content_was_not_copied_by_it_and_stays(store):
    take_back(store, "cifar-2.0.mar", "b" * 64)
    assert (store / "cifar-2.0.mar").exists()
    assert (store / "cifar-2.0.mar.sha256").exists()


@pytest.mark.parametrize("archive", ["../outside", "../outside.mar", "/etc/hostname", "", ".", ".."])
def test_nothing_outside_of_the_store_is_removed(store, archive):
    with pytest.raises(InvalidStateFile, match="not the name of an archive"):
        take_back(store, archive, digest_file(store / "../outside"))


def test_a_link_in_the_place_of_an_archive_leads_nowhere(store):
    digest = digest_file(store / "cifar-2.0.mar")
    (store / "cifar-2.0.mar").rename(store / "elsewhere.mar")
    (store / "cifar-2.0.mar").symlink_to(store / "elsewhere.mar")
    take_back(store, "cifar-2.0.mar", digest)
    assert (store / "elsewhere.mar").exists()


@pytest.mark.parametrize("before", [None, DesiredState("1.0", (ONE,))])
def test_what_the_server_rejects_is_not_remembered(tmp_path, before):
    if before is not None:
        write_desired_state(tmp_path, before)
    change = DesiredState("1.0", (ServedVersion("1.0", "cifar-1.0.mar", "a" * 64, workers=5),))
    with pytest.raises(ServerUnreachable), remembered_first(tmp_path, change):
        assert read_desired_state(tmp_path) == change
        raise ServerUnreachable("there", "it was killed")
    assert read_desired_state(tmp_path) == before


def test_with_a_full_disk_the_server_is_not_asked(tmp_path, monkeypatch):
    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    write_desired_state(tmp_path, DesiredState("1.0", (ONE,)))
    monkeypatch.setattr("cifar.common.files.os.fsync", fail)
    asked = []
    with pytest.raises(OSError, match="No space left"), remembered_first(tmp_path, DesiredState(None, ())):
        asked.append("the server")
    assert asked == []
    assert read_desired_state(tmp_path) == DesiredState("1.0", (ONE,))
