"""Pairs of keys for signatures."""

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


def private_pem(key: Any, encryption: Any = None) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))


def public_pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def write_pair(folder: Path, key: Any = None) -> tuple[Path, Path]:
    """Write a private and a public key into two files of a new folder."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    folder.mkdir()
    (folder / "signing.pem").write_bytes(private_pem(key))
    (folder / "signing.pub").write_bytes(public_pem(key))
    return folder / "signing.pem", folder / "signing.pub"
