"""The digest by which files are known: weights, exported files, archives."""

import hashlib
from pathlib import Path


def digest_file(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
