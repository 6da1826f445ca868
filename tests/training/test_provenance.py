"""The git commit of the code that ran, in real repositories."""

import subprocess

import pytest

from training.tracking import git_commit

AUTHOR = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]


def git(folder, *arguments):
    done = subprocess.run(
        ["git", "-C", str(folder), *AUTHOR, *arguments], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()


@pytest.fixture
def code(tmp_path):
    """A tracked file in a folder of a repository, beside a tracked dvc.lock."""
    file = tmp_path / "repository" / "package" / "code.py"
    file.parent.mkdir(parents=True)
    file.write_text("1\n")
    (tmp_path / "repository" / "dvc.lock").write_text("schema: '2.0'\n")
    git(tmp_path / "repository", "init", "--quiet")
    git(tmp_path / "repository", "add", ".")
    git(tmp_path / "repository", "commit", "--quiet", "--message", "first")
    return file


def test_a_clean_checkout_has_its_commit(code):
    commit = git_commit(code)
    assert commit == git(code.parent, "rev-parse", "HEAD")
    assert len(commit) == 40


def test_a_change_of_any_tracked_file_makes_it_dirty(code):
    clean = git_commit(code)
    other = code.parent.parent / "README.md"
    other.write_text("new\n")
    assert git_commit(code) == clean  # not tracked
    git(code.parent, "add", str(other))
    assert git_commit(code) == f"{clean}-dirty"


def test_what_dvc_writes_while_the_pipeline_runs_does_not_make_it_dirty(code):
    clean = git_commit(code)
    (code.parent.parent / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    assert git_commit(code) == clean
    code.write_text("2\n")
    assert git_commit(code) == f"{clean}-dirty"


def test_a_copy_installed_inside_another_checkout_has_no_commit(code):
    installed = code.parent.parent / ".venv" / "code.py"
    installed.parent.mkdir()
    installed.write_bytes(code.read_bytes())
    assert git_commit(installed) == "unknown"


def test_without_a_repository_a_commit_or_git_it_is_unknown(tmp_path, code, monkeypatch):
    (tmp_path / "code.py").write_text("1\n")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit(tmp_path / "code.py") == "unknown"
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "code.py")
    assert git_commit(tmp_path / "code.py") == "unknown"  # tracked, but nothing is committed
    assert git_commit(code) != "unknown"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(code) == "unknown"
