"""What is rejected before any server sees it, with the reason; and that a good archive is not."""

import io
import json
import os
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from cifar.archives.inspection import inspect_archive
from cifar.common.errors import ArchiveRejected
from tests.support.tiny import copy_handler, tiny_archive


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    return tiny_archive(folder, "1.5", 5, copy_handler(folder / "handler"))


@pytest.fixture
def good(built, tmp_path) -> Path:
    """A copy to be damaged, without its digest."""
    return Path(shutil.copy(built, tmp_path / "cifar-1.5.mar"))


def repack(path: Path, change=lambda files: None, manifest=lambda model: None, method=zipfile.ZIP_STORED) -> Path:
    """Change the entries of an archive, and its manifest."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    document = json.loads(files["MAR-INF/MANIFEST.json"])
    manifest(document["model"])
    files["MAR-INF/MANIFEST.json"] = json.dumps(document).encode()
    change(files)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def with_reference(path: Path, called: str = "reference_outputs.npz", **arrays: np.ndarray) -> Path:
    """Replace arrays of the reference outputs inside the TorchScript file inside the archive, or their file's name."""

    def change(files: dict[str, bytes]) -> None:
        with zipfile.ZipFile(io.BytesIO(files["model.pt"])) as model:
            entries = {name: model.read(name) for name in model.namelist()}
        [name] = [name for name in entries if name.endswith("reference_outputs.npz")]
        with np.load(io.BytesIO(entries[name])) as old:
            file = io.BytesIO()
            np.savez(file, **{**old, **arrays})
        del entries[name]
        entries[name.replace("reference_outputs.npz", called)] = file.getvalue()
        changed = io.BytesIO()
        with zipfile.ZipFile(changed, "w") as model:
            for entry, content in entries.items():
                model.writestr(entry, content)
        files["model.pt"] = changed.getvalue()

    return repack(path, change)


def test_what_was_built_passes_and_is_described(built):
    candidate = inspect_archive(built)
    assert (candidate.version, candidate.recorded, candidate.size) == ("1.5", True, built.stat().st_size)
    assert candidate.metadata["weights_digest"] == f"{5:064x}"
    assert candidate.reference.probabilities.shape == (32, 10)
    assert built.with_name("cifar-1.5.mar.sha256").read_text().split()[0] == candidate.sha256


def test_what_was_exported_before_the_reference_outputs_were_called_so_passes(good):
    assert inspect_archive(with_reference(good, "certificate.npz")).reference.images.shape == (32, 32, 32, 3)


def test_without_a_recorded_digest_it_passes_and_says_so(good):
    assert not inspect_archive(good).recorded


def set_model(**values):
    return lambda model: model.update(values)


def drop(key):
    return lambda model: model.pop(key)


DAMAGES = {
    "missing": (lambda path: path.unlink(), "is missing"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
    "empty": (lambda path: path.write_bytes(b""), "truncated or no archive"),
    "text": (lambda path: path.write_text("hello"), "truncated or no archive"),
    "cut at its end": (lambda path: path.write_bytes(path.read_bytes()[:-40]), "truncated"),
    "cut in the middle": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "truncated"),
    "another digest": (
        lambda path: path.with_name(path.name + ".sha256").write_text("0" * 64 + "  cifar-1.5.mar\n"),
        r"is not the file that was built: its SHA-256 is [0-9a-f]{64}, cifar-1\.5\.mar\.sha256 recorded 0{64}",
    ),
    "no digest in its file": (
        lambda path: path.with_name(path.name + ".sha256").write_text(""),
        "holds no SHA-256",
    ),
    "without its handler": (
        lambda path: repack(path, lambda files: files.pop("cifar_handler.py")),
        r"lacks its handler: its manifest names 'cifar_handler\.py'",
    ),
    "without its network": (
        lambda path: repack(path, lambda files: files.pop("model.pt")),
        r"lacks its network: its manifest names 'model\.pt'",
    ),
    "no handler named": (
        lambda path: repack(path, manifest=drop("handler")),
        "lacks its handler: its manifest names None",
    ),
    "no network named": (lambda path: repack(path, manifest=drop("serializedFile")), "lacks its network"),
    "of another model": (
        lambda path: repack(path, manifest=set_model(modelName="mnist")),
        "is of the model 'mnist'; this service is of 'cifar'",
    ),
    "without a version": (lambda path: repack(path, manifest=drop("modelVersion")), "has the version None"),
    "a version for a path": (
        lambda path: repack(path, manifest=set_model(modelVersion="../1")),
        r"has the version '\.\./1'; expected up to 50 letters",
    ),
    "a version for a metric": (
        lambda path: repack(path, manifest=set_model(modelVersion="1,0")),
        "has the version '1,0'",
    ),
    "an entry outside": (
        lambda path: repack(path, lambda files: files.update({"../../evil.py": b""})),
        r"holds '\.\./\.\./evil\.py', which would be unpacked outside",
    ),
    "an absolute entry": (
        lambda path: repack(path, lambda files: files.update({"/etc/evil": b""})),
        "holds '/etc/evil'",
    ),
    "no TorchScript": (
        lambda path: repack(path, lambda files: files.update({"model.pt": b"weights"})),
        r"model\.pt is no TorchScript file",
    ),
    "a state dict": (
        lambda path: repack(path, lambda files: files.update({"model.pt": state_dict()})),
        "has no reference outputs embedded",
    ),
    "probabilities of another network": (
        lambda path: with_reference(path, probabilities=np.full((32, 10), 0.1, np.float32)),
        r"does not answer as it was exported: image \d+ of 32 gets 0\.\d{4} for class \d, recorded was 0\.1000",
    ),
    "another shape": (
        lambda path: with_reference(path, probabilities=np.full((32, 9), 1 / 9, np.float32)),
        r"probabilities \(32, 9\); expected \(N, 32, 32, 3\) and \(N, 10\)",
    ),
    "a FIFO": (lambda path: put_fifo(path), "Not a regular file"),
    "a link to a device": (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "Not a regular file"),
    "a FIFO for its digest": (lambda path: os.mkfifo(path.with_name(path.name + ".sha256")), "holds no SHA-256"),
    "a digest without end": (
        lambda path: sparse(path.with_name(path.name + ".sha256"), 1 << 40),
        "holds no SHA-256",
    ),
    "larger than any archive": (lambda path: sparse(path, 1 << 40), "expected at most 1,073,741,824"),
    "a manifest nested deeply": (
        lambda path: with_manifest(path, b'{"model":' * 100_000),
        r"no manifest that names a model \(MAR-INF/MANIFEST\.json: depth limit",
    ),
    "a manifest of another encoding": (
        lambda path: with_manifest(path, b'{"model": "\xff"}'),
        "no manifest that names",
    ),
    "a manifest without end": (
        lambda path: with_manifest(path, b" " * 2_000_000),
        r"'MAR-INF/MANIFEST\.json' has 2,000,000 bytes; expected at most 1,048,576",
    ),
    "a long name for a model": (
        lambda path: repack(path, manifest=set_model(modelName="m" * 10**5)),
        "of the model 'mm",
    ),
    "encrypted": (lambda path: set_flags(path, 0x1), "'cifar_handler.py' is encrypted|is encrypted"),
    "a bomb": (
        lambda path: repack(
            path, lambda files: files.update({"zeros": bytes(500_000_000)}), method=zipfile.ZIP_DEFLATED
        ),
        r"unpacks to 50\d,\d{3},\d{3} bytes; expected at most",
    ),
    "a bomb for its metadata": (
        lambda path: with_extra(path, "metadata.json", b"[" + b" " * 10_000_000),
        r"metadata\.json has 10,000,001 bytes; expected at most",
    ),
    "metadata nested deeply": (
        lambda path: with_extra(path, "metadata.json", b"[" * 100_000),
        "has no reference outputs embedded",
    ),
    "a reference that claims 100 TB": (
        lambda path: with_extra(path, "reference_outputs.npz", npz(shape=(10**10, 32, 32, 3))),
        "has no reference outputs embedded .*reshape",
    ),
    "a reference of objects": (
        lambda path: with_extra(path, "reference_outputs.npz", npz(dtype="|O")),
        "images is of type object; expected uint8",
    ),
    "a reference nested deeply": (
        lambda path: with_extra(path, "reference_outputs.npz", npz(header="(" * 9000)),
        "has no reference outputs embedded",
    ),
    "a bomb for a reference": (
        lambda path: with_extra(
            path, "reference_outputs.npz", zipped({"images.npy": bytes(100_000_000), "probabilities.npy": b""})
        ),
        r"images has 100,000,000 bytes; expected at most",
    ),
    "two files of metadata": (
        lambda path: with_extra(path, "metadata.json", b"{}", again=True),
        "two of its entries have one name",
    ),
    "no model-config.yaml": (
        lambda path: repack(path, lambda files: files.pop("model-config.yaml"), drop("configFile")),
        r"lacks its model-config\.yaml: its manifest names none.*--config-file model-config\.yaml",
    ),
    "one that is not named": (
        lambda path: repack(path, manifest=drop("configFile")),
        r"lacks its model-config\.yaml: its manifest names none",
    ),
    "one that is not there": (
        lambda path: repack(path, lambda files: files.pop("model-config.yaml")),
        r"its manifest names 'model-config\.yaml', which is not in it",
    ),
    "packages": (
        lambda path: repack(path, lambda files: files.update({"requirements.txt": b"requests"})),
        r"asks for packages \('requirements\.txt'\), which this server does not install",
    ),
    "packages of another file": (
        lambda path: repack(path, manifest=set_model(requirementsFile="packages.txt")),
        r"asks for packages \('packages\.txt'\)",
    ),
    "no pictures": (
        lambda path: with_reference(
            path, images=np.zeros((0, 32, 32, 3), np.uint8), probabilities=np.zeros((0, 10), np.float32)
        ),
        "has reference outputs of images",
    ),
}


def put_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def with_manifest(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    path.write_bytes(zipped(files | {"MAR-INF/MANIFEST.json": content}))
    return path


def zipped(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def set_flags(path: Path, flags: int) -> None:
    """Set flags of all entries, in both of their headers."""
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(signature)
        while at >= 0:
            content[at + offset] |= flags
            at = content.find(signature, at + 4)
    path.write_bytes(content)


def with_extra(path: Path, name: str, content: bytes, again: bool = False) -> Path:
    """Replace what rides inside the TorchScript file, or put another of that name behind it."""

    def change(files: dict[str, bytes]) -> None:
        changed = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(files["model.pt"])) as model, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a duplicate name
            with zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as packed:
                for entry in model.namelist():
                    own = entry.endswith(f"/extra/{name}")
                    packed.writestr(entry, content if own and not again else model.read(entry))
                    if own and again:
                        packed.writestr(entry, content)
        files["model.pt"] = changed.getvalue()

    return repack(path, change)


def npz(shape: tuple[int, ...] = (1, 32, 32, 3), dtype: str = "|u1", header: str | None = None) -> bytes:
    """A reference whose header says this, with hardly anything behind it."""
    header = header or repr({"descr": dtype, "fortran_order": False, "shape": shape})
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(3072)
    return zipped({"images.npy": array, "probabilities.npy": array})


def state_dict() -> bytes:
    file = io.BytesIO()
    torch.save({"weight": torch.zeros(1)}, file)
    return file.getvalue()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_archive_is_rejected_with_the_reason(good, damage):
    break_it, told = DAMAGES[damage]
    break_it(good)
    with pytest.raises(ArchiveRejected, match=told) as rejection:
        inspect_archive(good)
    assert str(good) in str(rejection.value)
    assert str(rejection.value).isprintable()
    assert len(str(rejection.value)) < 1000


CONFIGS = {
    "minWorkers: 0\nmaxWorkers: 2": "asks for no workers \\(minWorkers: 0, maxWorkers: 2\\)",
    "minWorkers: 2": "minWorkers: 2, maxWorkers: missing",
    "maxWorkers: 2": "minWorkers: missing, maxWorkers: 2",
    "minWorkers: 2\nmaxWorkers: 1": "maxWorkers not below minWorkers",
    "minWorkers: many\nmaxWorkers: 2": "minWorkers: 'many'",
    "minWorkers: true\nmaxWorkers: 2": "minWorkers: True",
    "minWorkers: 1.5\nmaxWorkers: 2": "minWorkers: 1.5",
    "minWorkers: -1\nmaxWorkers: 2": "minWorkers: -1",
    "minWorkers: 100000\nmaxWorkers: 100000": "expected numbers from 1 to 1024",
    "batchSize: 16": "minWorkers: missing, maxWorkers: missing",
    "": "in a NoneType instead of a mapping",
    "- minWorkers": "in a list instead of a mapping",
    "minWorkers: [": "cannot be read: while parsing",
    "a: &a 1\nb: *a": "has aliases",
    "[" * 60_000: "cannot be read: it is nested more than 20 deep",
    "x" * 100_000: "has 100,000 bytes; expected at most 65,536",
    "\x00": "cannot be read",
    "2001-99-99": "cannot be read",
}


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_an_archive_that_asks_for_no_workers_is_rejected_at_once(good, config):
    """TorchServe would register it, and start none: the deployment would wait for its whole timeout."""
    repack(good, lambda files: files.update({"model-config.yaml": config.encode()}))
    with pytest.raises(ArchiveRejected, match=CONFIGS[config]) as rejection:
        inspect_archive(good)
    assert str(rejection.value).endswith("in which stand minWorkers: 2 and maxWorkers: 2")


def replace_network(path: Path, network: torch.nn.Module) -> Path:
    """Put another network behind the reference that is there."""

    def change(files: dict[str, bytes]) -> None:
        extra = {"metadata.json": "", "reference_outputs.npz": ""}
        torch.jit.load(io.BytesIO(files["model.pt"]), _extra_files=extra)
        file = io.BytesIO()
        torch.jit.save(torch.jit.script(network), file, _extra_files=extra)
        files["model.pt"] = file.getvalue()

    return repack(path, change)


class NineClasses(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.ones(images.shape[0], 9) / 9


class Raises(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float() @ torch.zeros(7, 7)


class NoNumbers(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full((images.shape[0], 10), float("nan"))


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (NineClasses(), r"the answer has the shape \(32, 9\), expected \(32, 10\)"),
        (Raises(), "it cannot be run: .*mat1 and mat2|it cannot be run: .*size"),
        (NoNumbers(), "some probabilities are no finite numbers"),
    ],
    ids=["another shape", "raises", "not finite"],
)
def test_a_network_that_does_not_answer_as_recorded_is_rejected(good, network, told):
    replace_network(good, network)
    with pytest.raises(ArchiveRejected, match=told):
        inspect_archive(good)


def test_a_network_that_takes_its_process_with_it_is_rejected(good, monkeypatch):
    """What a corrupt file does now and then: the process that loads it ends by a signal."""
    monkeypatch.setattr("cifar.archives.network_check.sys.executable", "/bin/false")
    with pytest.raises(ArchiveRejected, match="its process ended with 1"):
        inspect_archive(good)


def test_what_unpacks_to_too_much_is_rejected(good, monkeypatch):
    monkeypatch.setattr("cifar.archives.strict_zip.MAX_UNPACKED", 1000)
    with pytest.raises(ArchiveRejected, match=r"unpacks to [\d,]+ bytes; expected at most 1,000"):
        inspect_archive(good)


@pytest.mark.parametrize("place", [0.01, 0.3, 0.5, 0.9, 0.9999])
def test_one_changed_byte_is_rejected(built, tmp_path, place):
    """By the recorded digest, wherever it is; zip's own checksums do not cover names and dates."""
    for name in (built.name, f"{built.name}.sha256"):
        shutil.copy(built.with_name(name), tmp_path)
    changed = tmp_path / built.name
    content = bytearray(changed.read_bytes())
    content[int(place * len(content))] ^= 1
    changed.write_bytes(content)
    with pytest.raises(ArchiveRejected):
        inspect_archive(changed)
