"""Signatures that hold for an archive's bytes and for nothing else."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
)

from cifar.archives.archive import signature_path
from cifar.archives.signing import sign_archive, verify_archive
from cifar.common.errors import SignatureRejected
from tests.support.keys import private_pem, public_pem, write_pair

REPOSITORY = Path(__file__).resolve().parents[2]
CONTENT = bytes(range(256)) * 40


@pytest.fixture
def pair(tmp_path):
    return write_pair(tmp_path / "keys")


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "built" / "cifar-1.0.mar"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def signed(archive, pair):
    sign_archive(archive, pair[0])
    return archive


def names(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_what_was_signed_verifies_with_the_other_half_of_the_key(tmp_path, archive, curve):
    private, public = write_pair(tmp_path / "keys", ec.generate_private_key(curve()))
    assert sign_archive(archive, private) == signature_path(archive) == archive.parent / "cifar-1.0.mar.sig"
    assert names(archive.parent) == ["cifar-1.0.mar", "cifar-1.0.mar.sig"]
    assert archive.read_bytes() == CONTENT
    verify_archive(archive, public)


def test_a_copy_of_another_name_in_another_folder_verifies(tmp_path, signed, pair):
    copy = tmp_path / "model_store" / "cifar-canary.mar"
    copy.parent.mkdir()
    shutil.copy(signed, copy)
    shutil.copy(signature_path(signed), signature_path(copy))
    shutil.rmtree(signed.parent)
    verify_archive(copy, pair[1])


def test_a_link_counts_as_the_archive_that_it_leads_to(tmp_path, archive, pair):
    link = tmp_path / "link.mar"
    link.symlink_to(archive)
    assert sign_archive(link, pair[0]) == tmp_path / "link.mar.sig"
    verify_archive(link, pair[1])
    archive.write_bytes(CONTENT + b"x")
    with pytest.raises(SignatureRejected, match="is not the archive that was signed"):
        verify_archive(link, pair[1])


def test_an_archive_that_was_built_anew_is_signed_anew(signed, pair):
    signed.write_bytes(b"another version")
    sign_archive(signed, pair[0])
    verify_archive(signed, pair[1])
    assert names(signed.parent) == ["cifar-1.0.mar", "cifar-1.0.mar.sig"]


def flip(position):
    return lambda content: content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(flip(0), id="the first byte"),
        pytest.param(flip(len(CONTENT) // 2), id="one in the middle"),
        pytest.param(flip(len(CONTENT) - 1), id="the last byte"),
        pytest.param(lambda content: content + b"\0", id="one appended"),
        pytest.param(lambda content: content[:-1], id="one cut off"),
        pytest.param(lambda content: b"", id="all gone"),
    ],
)
def test_an_archive_that_differs_by_one_byte_is_rejected(signed, pair, change):
    signed.write_bytes(change(CONTENT))
    with pytest.raises(SignatureRejected, match=r"cifar-1\.0\.mar is not the archive that was signed.* sign it again"):
        verify_archive(signed, pair[1])


def test_a_signature_of_another_key_is_rejected(tmp_path, signed):
    _, other = write_pair(tmp_path / "other")
    with pytest.raises(SignatureRejected, match=r"was not made with the other half of .*other/signing\.pub"):
        verify_archive(signed, other)


def edit(signature, change):
    """Rewrite a signature as somebody without the private key could."""
    bundle = json.loads(signature.read_text())
    change(bundle)
    signature.write_text(json.dumps(bundle))


def test_a_signature_of_another_key_that_claims_to_be_of_ours_is_rejected(tmp_path, signed, pair):
    claim = json.loads(signature_path(signed).read_text())["verificationMaterial"]
    other, _ = write_pair(tmp_path / "other")
    sign_archive(signed, other)
    edit(signature_path(signed), lambda bundle: bundle.update(verificationMaterial=claim))
    with pytest.raises(SignatureRejected, match="was not made with the other half"):
        verify_archive(signed, pair[1])


def test_a_signature_that_was_edited_to_suit_a_changed_archive_is_rejected(signed, pair):
    def suit(bundle):
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        digest = hashlib.sha256(signed.read_bytes())
        (resource,) = statement["predicate"]["resources"]
        assert resource["digest"] == hashlib.sha256(CONTENT).hexdigest()
        resource["digest"] = digest.hexdigest()
        statement["subject"][0]["digest"]["sha256"] = hashlib.sha256(digest.digest()).hexdigest()
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()

    signed.write_bytes(CONTENT + b"\0")
    edit(signature_path(signed), suit)
    with pytest.raises(SignatureRejected, match="or was altered since"):
        verify_archive(signed, pair[1])


def test_an_archive_without_a_signature_is_rejected(archive, pair):
    with pytest.raises(
        SignatureRejected, match=r"is not signed: there is no .*cifar-1\.0\.mar\.sig\. Sign the archive"
    ):
        verify_archive(archive, pair[1])


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xfe\x00", id="bytes"),
        pytest.param(b"-----BEGIN SIGNATURE-----", id="text"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"verificationMaterial": {}}', id="half a bundle"),
        pytest.param(b"[" * 100_000, id="deep"),
    ],
)
def test_garbage_for_a_signature_is_rejected(archive, pair, garbage):
    signature_path(archive).write_bytes(garbage)
    with pytest.raises(SignatureRejected, match=r"cifar-1\.0\.mar\.sig is no signature that can be read"):
        verify_archive(archive, pair[1])


def test_a_bundle_without_any_signature_in_it_is_rejected(signed, pair):
    edit(signature_path(signed), lambda bundle: bundle["dsseEnvelope"].update(signatures=[]))
    with pytest.raises(SignatureRejected, match="is no signature that can be read"):
        verify_archive(signed, pair[1])


def test_a_folder_for_a_signature_is_rejected(archive, pair):
    signature_path(archive).mkdir()
    with pytest.raises(SignatureRejected, match=r"cifar-1\.0\.mar\.sig cannot be read: Is a directory"):
        verify_archive(archive, pair[1])


@pytest.mark.parametrize("what", ["missing", "a folder"])
def test_what_is_no_archive_is_neither_signed_nor_verified(tmp_path, pair, what):
    path = tmp_path / "cifar-3.0.mar"
    if what == "a folder":
        path.mkdir()
        (path / "model.pt").write_text("x")
    for use in (lambda: sign_archive(path, pair[0]), lambda: verify_archive(path, pair[1])):
        with pytest.raises(SignatureRejected, match=r"The archive .*cifar-3\.0\.mar cannot be read"):
            use()
    assert not signature_path(path).exists()


def test_a_missing_key_is_rejected_and_the_way_to_a_pair_is_shown(tmp_path, signed):
    before = signature_path(signed).read_bytes()
    for use, half in ((sign_archive, "private"), (verify_archive, "public")):
        with pytest.raises(SignatureRejected, match=rf"The {half} key .*none\.pem cannot be read.*openssl genpkey"):
            use(signed, tmp_path / "none.pem")
    assert signature_path(signed).read_bytes() == before


def other_keys():
    elliptic = ec.generate_private_key(ec.SECP256R1())
    yield "private", b"hello", "text"
    yield "public", b"hello", "text"
    yield "private", b"", "empty"
    yield "public", b"", "empty"
    yield "private", public_pem(elliptic), "the public half"
    yield "public", private_pem(elliptic), "the private half"
    yield "private", private_pem(elliptic, BestAvailableEncryption(b"password")), "encrypted"
    for name, key in {
        "RSA": rsa.generate_private_key(65537, 2048),
        "Ed25519": ed25519.Ed25519PrivateKey.generate(),
        "a curve of coins": ec.generate_private_key(ec.SECP256K1()),
    }.items():
        yield "private", private_pem(key), name
        yield "public", public_pem(key), name


@pytest.mark.parametrize(
    ("half", "content"), [pytest.param(half, content, id=f"{half} {name}") for half, content, name in other_keys()]
)
def test_what_is_no_elliptic_key_is_rejected(tmp_path, signed, half, content):
    key = tmp_path / "wrong.pem"
    key.write_bytes(content)
    before = signature_path(signed).read_bytes()
    with pytest.raises(SignatureRejected, match=rf"wrong\.pem holds no {half} key for signatures.*P-256"):
        (sign_archive if half == "private" else verify_archive)(signed, key)
    assert signature_path(signed).read_bytes() == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_write_leaves_the_old_signature(signed, pair, monkeypatch, error):
    before = signature_path(signed).read_bytes()
    whole = Path.write_text

    def write_half(path, text, **options):
        whole(path, text[: len(text) // 2], **options)
        raise error

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(error if isinstance(error, type) else OSError):
        sign_archive(signed, pair[0])
    assert signature_path(signed).read_bytes() == before
    assert names(signed.parent) == ["cifar-1.0.mar", "cifar-1.0.mar.sig"]
    verify_archive(signed, pair[1])


def test_without_model_signing_the_message_says_how_to_install_it(signed, pair, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    for use in (lambda: sign_archive(signed, pair[0]), lambda: verify_archive(signed, pair[1])):
        with pytest.raises(SignatureRejected, match=r"pip install .*\.\[signing\]"):
            use()


def run(program, *arguments):
    """Run a program in a process of its own, where nothing has been imported yet."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_command_starts_without_importing_what_signs():
    program = """
import sys
import cifar.cli.main, cifar.archives.signing
print(*sorted({"model_signing", "sigstore", "cryptography"} & set(sys.modules)))
"""
    assert run(program) == []


def test_the_network_is_never_asked(archive, pair):
    program = """
import sys
from pathlib import Path
network, asked = {"socket.connect", "socket.getaddrinfo", "socket.sendto"}, []
sys.addaudithook(lambda event, _: event in network and asked.append(event))
from cifar.archives.signing import sign_archive, verify_archive
archive, private, public = map(Path, sys.argv[1:])
sign_archive(archive, private)
verify_archive(archive, public)
print(*asked, "signed")
"""
    assert run(program, archive, *pair) == ["signed"]
