"""What should be served: written whole, read back, rejected where it makes no sense."""

import os

import orjson
import pytest

from cifar.common.errors import ArchiveUnusable, InvalidStateFile
from cifar.common.files import digest_file
from cifar.server.desired_state import (
    DesiredState,
    PendingDeployment,
    ServedVersion,
    forget_desired_state,
    read_desired_state,
    store_lock,
    write_deployed_targets,
    write_desired_state,
)
from cifar.server.model_store import check_deployed

ONE = ServedVersion("1.0", "cifar-1.0.mar", "a" * 64)
TWO = ServedVersion("2.0", "cifar-2.0.mar", "b" * 64, "2026-11-23T12:00:00+00:00", "models:/cifar/7", 3)
SERVING = DesiredState("2.0", (ONE, TWO), (ONE,), PendingDeployment("3.0", "cifar-3.0.mar", "c" * 64, True, False))


def test_it_comes_back_as_it_was_written(tmp_path):
    assert read_desired_state(tmp_path) is None
    write_desired_state(tmp_path, SERVING)
    assert read_desired_state(tmp_path) == SERVING
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deployed.json", "serving.json"]
    forget_desired_state(tmp_path)
    forget_desired_state(tmp_path)
    assert read_desired_state(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_prometheus_is_told_every_version_and_which_is_the_default(tmp_path):
    write_desired_state(tmp_path, SERVING)
    targets = orjson.loads((tmp_path / "deployed.json").read_bytes())
    assert [target["labels"] for target in targets] == [
        {"model_version": "1.0", "default": "false", "underway": "false"},
        {"model_version": "2.0", "default": "true", "underway": "false"},
        {"model_version": "3.0", "default": "false", "underway": "true"},
    ]
    assert all(len(target["targets"]) == 1 for target in targets)
    write_desired_state(tmp_path, DesiredState("1.0", (ONE,)))
    [target] = orjson.loads((tmp_path / "deployed.json").read_bytes())
    assert target["labels"] == {"model_version": "1.0", "default": "true", "underway": "false"}


def test_the_default_is_loaded_first_and_becomes_it_so():
    assert SERVING.models == ["cifar=cifar-2.0.mar", "cifar=cifar-1.0.mar"]


def test_a_version_is_found_as_it_should_run_else_as_it_last_ran():
    again = ServedVersion("1.0", "cifar-1.0.mar", "d" * 64)
    serving = DesiredState("2.0", (TWO,), (ONE, again))
    assert (serving.find("2.0"), serving.find("1.0"), serving.find("9")) == (TWO, again, None)
    assert serving.scaled("2.0", 5).find("2.0") == ServedVersion(
        TWO.version, TWO.archive, TWO.sha256, TWO.deployed, TWO.source, 5
    )


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"default": "1.0", "versions": [], "history": [], "underway": null}',
        '{"default": null, "versions": [{"version": "1.0"}], "history": [], "underway": null}',
        '{"default": null, "versions": null, "history": [], "underway": null}',
        '{"default": null, "versions": [], "history": [], "underway": {"who": 1}}',
    ],
)
def test_a_file_that_does_not_say_it_is_rejected_and_left_alone(tmp_path, content):
    (tmp_path / "serving.json").write_text(content)
    with pytest.raises(
        InvalidStateFile, match=r"serving\.json does not say what should be served .*cifar up cifar=ARCHIVE"
    ):
        read_desired_state(tmp_path)
    assert (tmp_path / "serving.json").read_text() == content


def document(**change: object) -> dict[str, object]:
    return dict(orjson.loads(orjson.dumps(SERVING))) | change


def changed(section: str, **change: object) -> dict[str, object]:
    """What SERVING is written as, with other fields in its `underway`, or in the first of its versions or history."""
    content = document()
    entry = content[section] if section == "underway" else content[section][0]  # type: ignore[index]
    entry.update(change)  # type: ignore[union-attr]
    return content


@pytest.mark.parametrize("section", ["versions", "history", "underway"])
@pytest.mark.parametrize(
    "change",
    [
        {"archive": "../x"},
        {"archive": "/etc/passwd"},
        {"archive": ".cifar-1.0.mar"},
        {"archive": "a/cifar-1.0.mar"},
        {"archive": "cifar-1.0.mar\n"},
        {"archive": "serving.json"},
        {"archive": ["cifar-1.0.mar"]},
        {"version": "../1"},
        {"version": 1.0},
        {"version": "1" * 51},
        {"sha256": "a" * 63},
        {"sha256": "A" * 64},
        {"sha256": None},
        {"further": 1},
    ],
)
def test_every_field_is_checked_before_it_is_believed(tmp_path, section, change):
    content = orjson.dumps(changed(section, **change))
    (tmp_path / "serving.json").write_bytes(content)
    with pytest.raises(InvalidStateFile, match=rf"{section}.*{next(iter(change))}.*Restore it"):
        read_desired_state(tmp_path)
    assert (tmp_path / "serving.json").read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [
        changed("versions", workers=0),
        changed("versions", workers=True),
        changed("versions", workers=10**9),
        changed("versions", deployed="yesterday"),
        changed("versions", source="x" * 9000),
        changed("underway", copied="yes"),
        changed("underway", registered=1),
        document(further=None),
        document(history=[{}]),
        document(versions=[{"version": "2.0", "archive": "a.mar", "sha256": "a" * 64}] * 2),
        document(history=[changed("history")["history"][0]] * 1001),  # type: ignore[index]
    ],
)
def test_numbers_times_and_lists_have_bounds(tmp_path, content):
    (tmp_path / "serving.json").write_bytes(orjson.dumps(content))
    with pytest.raises(InvalidStateFile, match=r"serving\.json does not say"):
        read_desired_state(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, " " * (2 << 20)])
def test_a_file_that_is_too_long_or_too_deep_is_rejected(tmp_path, text):
    (tmp_path / "serving.json").write_text(text)
    with pytest.raises(InvalidStateFile, match=r"serving\.json does not say"):
        read_desired_state(tmp_path)


def test_a_pipe_in_its_place_is_rejected_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "serving.json")
    with pytest.raises(InvalidStateFile, match="no regular file"):
        read_desired_state(tmp_path)


@pytest.mark.parametrize(
    "serving",
    [
        DesiredState("1.0", (ServedVersion("1.0", "../x.mar", "a" * 64),)),
        DesiredState("1 0", (ServedVersion("1 0", "cifar.mar", "a" * 64),)),
        DesiredState("2.0", (ONE,)),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path, serving):
    write_desired_state(tmp_path, SERVING)
    with pytest.raises(InvalidStateFile, match="cannot be remembered"):
        write_desired_state(tmp_path, serving)
    assert read_desired_state(tmp_path) == SERVING


def test_a_failing_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    write_desired_state(tmp_path, SERVING)

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cifar.common.files.os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_desired_state(tmp_path, DesiredState("1.0", (ONE,)))
    assert read_desired_state(tmp_path) == SERVING
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deployed.json", "serving.json"]


def test_where_prometheus_cannot_be_told_nothing_has_changed(tmp_path):
    write_desired_state(tmp_path, SERVING)
    (tmp_path / "deployed.json").unlink()
    (tmp_path / "deployed.json").mkdir()
    with pytest.raises(OSError, match=r"deployed\.json"):
        write_desired_state(tmp_path, DesiredState("1.0", (ONE,)))
    assert read_desired_state(tmp_path) == SERVING


def test_what_is_there_already_is_not_written_again(tmp_path, monkeypatch):
    write_desired_state(tmp_path, SERVING)

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cifar.common.files.os.fsync", fail)
    write_deployed_targets(tmp_path, SERVING)
    with pytest.raises(OSError, match="No space left"):
        write_deployed_targets(tmp_path, DesiredState("1.0", (ONE,)))


def test_deployed_archives_are_known_by_their_digest(tmp_path):
    archive = tmp_path / "cifar-1.0.mar"
    archive.write_bytes(b"archive")
    served = ServedVersion("1.0", archive.name, digest_file(archive))
    check_deployed(tmp_path, [served])
    archive.write_bytes(b"Archive")
    with pytest.raises(ArchiveUnusable, match=rf"{archive} is not what was deployed as version 1\.0.*{served.sha256}"):
        check_deployed(tmp_path, [served])
    archive.unlink()
    with pytest.raises(ArchiveUnusable, match=rf"{archive}, which was deployed as version 1\.0, cannot be read"):
        check_deployed(tmp_path, [served])


def test_one_at_a_time_changes_a_store(tmp_path):
    with store_lock(tmp_path / "new") as first, store_lock(tmp_path / "new") as second:
        assert (first, second) == (True, False)
    with store_lock(tmp_path / "new") as again:
        assert again
    assert list((tmp_path / "new").iterdir()) == []
