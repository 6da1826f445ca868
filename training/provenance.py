"""Which code ran: the git commit of the checkout."""

import subprocess
from pathlib import Path

_FILE = Path(__file__).resolve()


def git_commit(file: Path = _FILE) -> str:
    """Return the commit's hash, with `-dirty` behind it where tracked files differ; `unknown` outside a checkout.

    `dvc.lock` may differ: `dvc repro` writes it after each stage, before the next one asks.

    Args:
        file: the code that is asked about; a copy installed inside another project's checkout is none of its files.
    """
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        root = Path(_git(file.parent, "rev-parse", "--show-toplevel"))
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude,glob)**/dvc.lock")
        return f"{commit}-dirty" if changed else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=True,
    )
    return done.stdout.strip()
