"""The digest by which files are known: weights, exported files, archives."""

import hashlib
from pathlib import Path

from training.regular_file import open_regular


def digest_file(path: Path) -> str:
    """Return a regular file's SHA-256 in hexadecimal digits; raises OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
