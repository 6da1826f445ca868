"""Signs an archive where it is built, and verifies it where it is deployed, with a pair of keys and no network.

The signature is that of model-signing's method "key": a Sigstore bundle around the archive's SHA-256, so its command
`model_signing verify key` takes it as well. It holds for the bytes, whatever the file is called and wherever it lies.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from cifar.archives.archive import signature_path
from cifar.common.errors import SignatureRejected
from cifar.common.files import atomic_write, open_regular

VERIFY_KEY = "CIFAR_VERIFY_KEY"  # the environment variable with the path of the public key that archives must fit
SIGNING_KEY = "CIFAR_SIGNING_KEY"  # the same, of the private key that they are signed with

_MAX_SMALL_FILE = 1 << 20  # bytes of a key or a signature; ours have 300 and 1,200
_NEW_PAIR = (
    "A new pair: `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out signing.pem`, "
    "then `openssl pkey -in signing.pem -pubout -out signing.pub`."
)


def required_key() -> Path | None:
    """Return the public key that archives must fit; None where they need not be signed.

    Raises:
        SignatureRejected: the environment variable is there, and names nothing: that must not mean "off".
    """
    return _read_key(VERIFY_KEY)


def signing_key() -> Path | None:
    """Return the private key that archives are signed with; None: they are not. Raises SignatureRejected as above."""
    return _read_key(SIGNING_KEY)


def sign_archive(archive: Path, private_key: Path) -> Path:
    """Write the signature of an archive; one from before is replaced.

    Args:
        archive: what `make archive` built, or a link to it.
        private_key: PEM, unencrypted, on the curve P-256, P-384 or P-521.

    Returns:
        Where the signature is: `signature_path(archive)`. Its bytes differ from one signing to the next.

    Raises:
        SignatureRejected: no archive, no such key, or model-signing is not installed.
        OSError: the signature cannot be written; the one from before is as it was.
    """
    library = _model_signing()
    with _rejecting_other_keys(private_key, "private"):
        _check_small(private_key)
        signer = library.signing.Config().use_elliptic_key_signer(private_key=private_key)
    signer.set_hashing_config(_hashing(library))
    content = _content(archive)
    signature = signature_path(archive)
    with atomic_write(signature) as temporary:
        signer.sign(content, temporary)
    return signature


def verify_archive(archive: Path, public_key: Path, called: Path | None = None) -> None:
    """Return if the signature beside an archive was made of these very bytes with the other half of this key.

    Verify the copy that will be served, where only this user writes: the file is not watched afterwards.

    Args:
        archive: whatever its name and folder, with its signature at `signature_path(archive)`.
        public_key: PEM, on the curve P-256, P-384 or P-521.
        called: what messages call it, if that is not where it lies.

    Raises:
        SignatureRejected: anything else; the message says what came, what was expected, how to fix it.
    """
    library = _model_signing()
    with _rejecting_other_keys(public_key, "public"):
        _check_small(public_key)
        verifier = library.verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    verifier.set_hashing_config(_hashing(library))
    content = _content(archive)
    signature, called = signature_path(archive), called or archive
    named = signature_path(called)
    try:
        _check_small(signature)
        verifier.verify(content, signature)
    except FileNotFoundError as error:
        raise SignatureRejected(
            f"{called} is not signed: there is no {named}. "
            "Sign the archive where it is built, and keep the signature beside it."
        ) from error
    except OSError as error:
        raise SignatureRejected(
            f"{named} cannot be read: {error.strerror}. It must be a file that this user may read."
        ) from error
    except Exception as error:  # a forged file makes the parsers raise all sorts, RecursionError among them
        raise SignatureRejected(_explain(error, called, named, public_key)) from error


def _read_key(variable: str) -> Path | None:
    path = os.environ.get(variable)
    if path is not None and not path.strip():
        raise SignatureRejected(
            f"{variable} is set and empty. Give it the path of a key, or unset it: then archives need no signature"
        )
    return Path(path) if path is not None else None


def _model_signing() -> ModuleType:
    """Import the library: half a second, and an extra, so only those pay who sign or verify."""
    try:
        import model_signing
    except ImportError as error:
        raise SignatureRejected(
            f"Signatures need the package model-signing, which cannot be imported: {error}. "
            "Install it with `pip install -c constraints.txt -e '.[signing]'`."
        ) from error
    return model_signing


def _hashing(library: ModuleType) -> Any:
    # Said outright for both sides, so that a signature does not choose how it is checked. Git's files are left out of
    # folders by default, and that rule would be written into every signature.
    files = library.hashing.Config().use_file_serialization(hashing_algorithm="sha256")
    return files.set_ignored_paths(paths=[], ignore_git_paths=False)


def _content(archive: Path) -> Path:
    """Find the file behind the name: model-signing would sign a folder, and rejects links."""
    try:
        with open_regular(archive):
            return archive.resolve()
    except OSError as error:
        raise SignatureRejected(
            f"The archive {archive} cannot be read: {error.strerror}. `make archive` builds one."
        ) from error


def _check_small(path: Path) -> None:
    """Raise OSError unless this is a regular file of a size that a key or a signature can have."""
    open_regular(path, _MAX_SMALL_FILE).close()


@contextmanager
def _rejecting_other_keys(path: Path, half: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SignatureRejected(f"The {half} key {path} cannot be read: {error.strerror}. {_NEW_PAIR}") from error
    except Exception as error:  # a ValueError, TypeError, AttributeError and more, by what the file holds instead
        raise SignatureRejected(
            f"{path} holds no {half} key for signatures. "
            f"It must be PEM, unencrypted, on the elliptic curve P-256, P-384 or P-521. {_NEW_PAIR}"
        ) from error


def _explain(error: Exception, archive: Path, signature: Path, public_key: Path) -> str:
    from cryptography.exceptions import InvalidSignature  # came with model-signing; serving alone does without

    # model-signing distinguishes its verdicts by their first words only; with other words they are still rejections.
    if str(error).startswith("Signature mismatch"):
        return (
            f"{archive} is not the archive that was signed: its bytes do not match {signature}. "
            "Copy both again from where they were built; if it was rebuilt, sign it again."
        )
    if isinstance(error, InvalidSignature) or str(error).startswith("Key mismatch"):
        return (
            f"{signature} was not made with the other half of {public_key}, or was altered since. "
            "Give the public key of the signer, or have the archive signed with the expected key."
        )
    return (
        f"{signature} is no signature that can be read: {type(error).__name__}: {str(error)[:200]}. "
        "Copy it again from where the archive was signed, or sign the archive again."
    )
