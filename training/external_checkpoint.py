"""External checkpoints: finds the state dict in what other training scripts save, and names files that hold none.

Nothing of a file is run: its kind is inferred from its first bytes, the names in its archive and its pickle's opcodes.
"""

import io
import itertools
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from torch import Tensor

from training.errors import WeightsError

# What DataParallel, DistributedDataParallel, torch.compile, FSDP and activation checkpointing put into names, anywhere.
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_FIRST = "conv1.weight"  # which every network here has
_AVERAGE = re.compile(r"ema|averag|shadow|swa")
_MAX_DEPTH = 4  # {"checkpoint": {"model": {"state_dict": …}}} and one more
_MAX_ENTRIES = 100_000
_MAX_NUMBERS = 100_000_000  # in all tensors together, 400 MB of float32; the widest preset has under 10 million
_SHOWN_NAMES = 4
_SAVE = "save the network by itself: torch.save(network.state_dict(), 'best_cnn_model.pth')"


@dataclass(frozen=True)
class _Candidate:
    """Tensors that may be the network's, and where they were found: keys of dicts, and the prefix of their names."""

    keys: tuple[str, ...]
    prefix: str
    tensors: dict[str, Tensor]
    left_out: tuple[str, ...]

    @property
    def label(self) -> str:
        return ".".join((*self.keys, self.prefix)).rstrip(".") or "the outermost names"


def find_state_dict(content: Mapping[Any, Any], path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Find the network's named tensors in what torch.load gave.

    Taken are dicts in dicts ({"model_state_dict": …}), prefixes of names (`module.`, `_orig_mod.`, Lightning's
    `model.`), and other entries beside. Of several, the one that calls itself best is taken, else the average.

    Returns:
        The tensors by the names that the network gives them; and a line that says what was taken where this was not
        all of the file, else None.

    Raises:
        WeightsError: no state dict, several, or one that no network can have.
    """
    found = list(_find_candidates(content, path))
    if not found:
        return _take_foreign(content, path), None
    chosen = _choose(found, path)
    _check_tensors(chosen.tensors, path)
    return chosen.tensors, _describe(chosen, found, path)


def _find_candidates(content: Mapping[Any, Any], path: Path) -> Iterator[_Candidate]:
    for keys, mapping in _walk(content, path):
        tensors = {
            name: value for name, value in mapping.items() if isinstance(name, str) and isinstance(value, Tensor)
        }
        prefixes = sorted({prefix for name in tensors if (prefix := _prefix_of(name)) is not None}, key=len)
        for prefix in prefixes:
            longer = tuple(other for other in prefixes if len(other) > len(prefix))
            own = [name for name in tensors if name.startswith(prefix) and not name.startswith(longer)]
            left_out = tuple(str(name) for name in mapping if name not in set(own))
            plain = {_plain(name[len(prefix) :]): tensors[name] for name in own}
            if len(plain) < len(own):
                raise WeightsError(f"{path} has names that differ only in {', '.join(sorted(_WRAPPERS))}; {_SAVE}")
            yield _Candidate(keys, prefix, plain, left_out)


def _walk(content: Mapping[Any, Any], path: Path) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """Yield the dict and those in it, but for an optimizer's, which has tensors of the same names."""
    waiting: list[tuple[tuple[str, ...], Mapping[Any, Any]]] = [((), content)]
    seen, entries = {id(content)}, 0
    while waiting:
        keys, mapping = waiting.pop(0)
        entries += len(mapping)
        if entries > _MAX_ENTRIES:
            raise WeightsError(
                f"{path} has more than {_MAX_ENTRIES:,} entries, expected a checkpoint of one network; {_SAVE}"
            )
        yield keys, mapping
        for key, value in mapping.items():
            inside = isinstance(value, Mapping) and len(keys) < _MAX_DEPTH and id(value) not in seen
            if inside and "optim" not in str(key).lower():
                seen.add(id(value))
                waiting.append(((*keys, str(key)), value))


def _prefix_of(name: str) -> str | None:
    """Return what stands before conv1.weight; None for another tensor."""
    parts = name.split(".")
    while len(parts) > 1 and parts[-2] in _WRAPPERS:
        del parts[-2]
    if parts[-2:] != _FIRST.split("."):
        return None
    return name[: name.rindex("conv1.")]


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _choose(found: list[_Candidate], path: Path) -> _Candidate:
    def names(candidate: _Candidate) -> set[str]:
        return {name for name in candidate.tensors if not name.endswith("num_batches_tracked")}

    most = max(len(names(candidate)) for candidate in found)
    # An average of the parameters alone lacks what batch normalisation has measured.
    whole = [candidate for candidate in found if len(names(candidate)) == most]
    for called in (
        whole,
        [candidate for candidate in whole if "best" in candidate.label.lower()],
        [candidate for candidate in whole if _AVERAGE.search(candidate.label.lower())],
    ):
        if len(called) == 1 or (called and all(_same(candidate, called[0]) for candidate in called)):
            return called[0]
    labels = _list([candidate.label for candidate in whole])
    value = f"torch.load('{path}')" + "".join(f"[{key!r}]" for key in whole[0].keys)
    if whole[0].prefix:
        prefix = whole[0].prefix
        value = f"{{k.removeprefix({prefix!r}): v for k, v in {value}.items() if k.startswith({prefix!r})}}"
    raise WeightsError(
        f"{path} holds several state dicts ({labels}); save the one that is meant by itself, for example "
        f"torch.save({value}, 'best_cnn_model.pth')"
    )


def _same(one: _Candidate, other: _Candidate) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        tensor is other.tensors[name] or torch.equal(tensor, other.tensors[name])
        for name, tensor in one.tensors.items()
    )


def _check_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Reject tensors that no network here can have, before memory is asked for."""
    numbers = sum(tensor.numel() for tensor in tensors.values())
    if numbers > _MAX_NUMBERS:
        raise WeightsError(
            f"{path} has tensors of {numbers:,} numbers, expected at most {_MAX_NUMBERS:,}; it is of another network"
        )
    for name, tensor in tensors.items():
        if tensor.is_meta or tensor.is_quantized or tensor.layout is not torch.strided:
            kind = "no data (meta)" if tensor.is_meta else "quantized" if tensor.is_quantized else "sparse"
            raise WeightsError(f"{path}: {name} is {kind}, expected plain floats; save the network before that step")
        if name.endswith("num_batches_tracked"):
            continue
        if not tensor.is_floating_point():
            raise WeightsError(
                f"{path}: {name} is of {tensor.dtype}, expected floats (16, 32 or 64 bits); save the network before it "
                "was quantized"
            )
        if not bool(torch.isfinite(tensor.float()).all()):
            raise WeightsError(
                f"{path}: {name} holds NaN, infinity or numbers beyond float32; take an earlier checkpoint, before "
                "training diverged"
            )


def _take_foreign(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """Return the only state dict, though of another network, whose names the caller's message shows."""
    whole = [
        mapping
        for _, mapping in _walk(content, path)
        if mapping and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in mapping.items())
    ]
    if len(whole) != 1:
        kinds = ", ".join(sorted({type(value).__name__ for value in content.values()})[:_SHOWN_NAMES]) or "nothing"
        raise WeightsError(f"{path} holds no state dict (named tensors), but {kinds}; {_SAVE}")
    return dict(whole[0])


def _describe(chosen: _Candidate, found: list[_Candidate], path: Path) -> str | None:
    wrapped = any(_plain(name) != name for name in chosen.tensors)
    if not chosen.keys and not chosen.prefix and not chosen.left_out and not wrapped:
        return None
    parts = [f"the state dict under {'.'.join(chosen.keys)!r}" if chosen.keys else "its state dict"]
    if chosen.prefix:
        parts.append(f"without the prefix {chosen.prefix!r}")
    if len(found) > 1:
        others = [candidate.label for candidate in found if candidate is not chosen]
        parts.append(f"not {_list(others)}")
    if chosen.left_out:
        parts.append(f"left out: {_list(chosen.left_out)}")
    return f"{path}: took {', '.join(parts)}"


def _list(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN_NAMES:,} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(name[:60] for name in names[:_SHOWN_NAMES]) + more


_HEAD_BYTES = 4096
_MAX_PICKLE_BYTES = 64_000_000
_MAX_OPCODES = 100_000
_SHOWN_CLASSES = 3

_SAVE_THERE = "where it was trained: torch.save(network.state_dict(), 'best_cnn_model.pth')"
# Begins so, what it is, and the line that helps; {path} is quoted for a shell, {name} for Python.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file itself", "git lfs pull --include {path}"),
    (b"\x89HDF\r\n\x1a\n", "is HDF5, as Keras saves weights", _SAVE_THERE + "; Keras has kernels of another layout"),
    (b"\x93NUMPY", "is an array of NumPy without a name, not a state dict", _SAVE_THERE),
    (b"\x1f\x8b", "is compressed by gzip", "gzip -dc {path} > best_cnn_model.pth"),
    (b"BZh", "is compressed by bzip2", "bzip2 -dc {path} > best_cnn_model.pth"),
    (b"\xfd7zXZ\0", "is compressed by xz", "xz -dc {path} > best_cnn_model.pth"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd", "zstd -dc {path} > best_cnn_model.pth"),
    (b"7z\xbc\xaf\x27\x1c", "is an archive of 7-Zip", "7z x {path}"),
    (b"Rar!", "is an archive of RAR", "unrar x {path}"),
    (b"\x08\x01\x12", "is a SavedModel of TensorFlow", _SAVE_THERE),
)
_SAFETENSORS_LINE = (
    'python -c "import torch; from safetensors.torch import load_file; '
    "torch.save(load_file({name}), 'best_cnn_model.pth')\" (pip install safetensors)"
)
_NPZ_LINE = (
    'python -c "import numpy, torch; torch.save({k: torch.from_numpy(v) for k, v in numpy.load({name}).items()}, '
    "'best_cnn_model.pth')\""
)
_TORCHSCRIPT_LINE = (
    "python -c \"import torch; torch.save(torch.jit.load({name}, 'cpu').state_dict(), 'best_cnn_model.pth')\""
)
_EXPORTED_LINE = (
    "python -c \"import torch; torch.save(dict(torch.export.load({name}).state_dict), 'best_cnn_model.pth')\""
)
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # of torch.save before its files were zip archives
_HARMLESS = ("collections OrderedDict", "torch._utils ", "torch ", "torch.storage ", "torch.nn.parameter Parameter")


def name_kind(path: Path) -> str | None:
    """Say what a file is instead of a checkpoint of tensors: `is …; line`; None where that is not known."""
    if path.is_dir():
        return "is a folder; name the file in it (*.pth, *.pt)"
    if not path.is_file():
        return "is no regular file; copy it into one first"
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        return "is empty; copy or download it again"
    kind = next(filter(None, (detect(head, path) for detect in _DETECTORS)), None)
    return None if kind is None else kind.replace("{path}", quote(str(path))).replace("{name}", repr(str(path)))


def _by_signature(head: bytes, _path: Path) -> str | None:
    return next((f"{what}; {line}" for begin, what, line in _SIGNATURES if head.startswith(begin)), None)


def _by_text(head: bytes, path: Path) -> str | None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<error", b"<!--")):
        return (
            "is a web page (HTML), not the file itself; download again, from the address of the file: "
            "curl -fL -o {path} ADDRESS (with /raw/ or /resolve/ where the page's has /blob/)"
        )
    if re.search(rb"^\s*(- )?md5: [0-9a-f]{32}", text, re.MULTILINE):
        line = "dvc pull " + ("{path}" if path.suffix != ".dvc" else quote(str(path.with_suffix(""))))
        return f"is a pointer of DVC, not the file itself; {line}"
    if text[:1] == b"{" and b"\0" not in text:
        return f"is JSON, not a checkpoint ({_show(head)}); if it was downloaded, it is an error: download it again"
    return None


def _by_structure(head: bytes, path: Path) -> str | None:
    if head[257:262] == b"ustar":
        return "is a tar archive; tar -xf {path}, and name the file in it"
    if head[4:8] == b"TFL3":
        return f"is a model of TensorFlow Lite; {_SAVE_THERE}"
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= header <= path.stat().st_size:
        return f"is safetensors; {_SAFETENSORS_LINE}"
    # Field 1 of the message, a version below 20, then a field of text or of a submessage: protobuf has no signature.
    if head[:1] == b"\x08" and len(head) > 3 and head[1] < 20 and head[2] in (0x12, 0x1A, 0x22, 0x32, 0x3A, 0x42):
        return f"is ONNX, whose tensors have lost their names; {_SAVE_THERE}"
    return None


def _by_archive(head: bytes, path: Path) -> str | None:
    if not head.startswith(b"PK"):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            return _by_names(names) or _by_pickle_in(archive, names)
    # An unknown method of compression is a NotImplementedError, an encrypted entry a RuntimeError.
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return f"is truncated or damaged ({path.stat().st_size:,} bytes); copy or download it again"


def _by_names(names: list[str]) -> str | None:
    last = {name.rpartition("/")[2] for name in names}
    folders = {part for name in names for part in name.split("/")[:-1]}
    shown = ", ".join(sorted(last)[:3]) or "nothing"
    kinds = (
        ("MAR-INF" in folders, "is an archive of TorchServe (.mar); unzip {path}, and name the model file in it"),
        ("constants.pkl" in last and "code" in folders, f"is TorchScript; {_TORCHSCRIPT_LINE}"),
        ("archive_format" in last, f"is a program of torch.export; {_EXPORTED_LINE}"),
        (bool(names) and all(name.endswith(".npy") for name in names), f"is an archive of NumPy (.npz); {_NPZ_LINE}"),
        ("model.weights.h5" in last, f"is a model of Keras; {_SAVE_THERE}; Keras has kernels of another layout"),
        ("data.pkl" not in last, f"is a zip archive ({shown}); unzip {{path}}, and name the checkpoint in it"),
    )
    return next((kind for holds, kind in kinds if holds), None)


def _by_pickle_in(archive: zipfile.ZipFile, names: list[str]) -> str | None:
    entry = next(name for name in names if name.endswith("data.pkl"))
    with archive.open(entry) as file:
        return _by_opcodes(file.read(_MAX_PICKLE_BYTES))


def _by_pickle(head: bytes, path: Path) -> str | None:
    if head.startswith(_LEGACY_MAGIC):
        with path.open("rb") as file:
            content = file.read(_MAX_PICKLE_BYTES)
        stream = io.BytesIO(content)
        try:
            for _header in ("magic number", "protocol", "system"):
                for _opcode in pickletools.genops(stream):
                    pass
        except ValueError:
            return f"is truncated or damaged ({path.stat().st_size:,} bytes); copy or download it again"
        return _by_opcodes(content[stream.tell() :])
    if re.match(rb"\x80[\x02-\x05]", head):
        return (
            'is a bare pickle, which is never run here; if you trust it: python -c "import pickle, torch; '
            "torch.save(pickle.load(open({name}, 'rb')), 'best_cnn_model.pth')\""
        )
    return None


def _by_opcodes(content: bytes) -> str | None:
    """Tell a module with its code, or a checkpoint that holds some, from the classes that a pickle names."""
    classes: list[str] = []
    keys: list[str] = []
    outermost: str | None = None
    strings: list[str] = []
    try:
        for opcode, argument, _ in itertools.islice(pickletools.genops(content), _MAX_OPCODES):
            if isinstance(argument, str) and "UNICODE" in opcode.name:
                strings.append(argument)
            name = str(argument) if opcode.name == "GLOBAL" else " ".join(strings[-2:])
            if opcode.name in ("GLOBAL", "STACK_GLOBAL"):
                outermost = outermost or name
                classes.append(name)
            elif opcode.name in ("EMPTY_DICT", "DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
                outermost = outermost or opcode.name
        keys = [key for key in ("state_dict", "model_state_dict", "model", "net") if key in strings]
    except Exception:  # noqa: S110 - what has been read up to the damage is what is known
        pass
    unknown = [name.replace(" ", ".") for name in dict.fromkeys(classes) if not name.startswith(_HARMLESS)]
    if not unknown:
        return None
    shown = ", ".join(unknown[:_SHOWN_CLASSES]) + (", …" if len(unknown) > _SHOWN_CLASSES else "")
    load = "torch.load({name}, weights_only=False)"
    if outermost is not None and outermost.replace(" ", ".") == unknown[0]:
        what, value = "is a whole module, pickled with the name of its class", f"{load}.state_dict()"
    else:
        what, value = "holds objects beside its tensors", f'{load}["{keys[0] if keys else "state_dict"}"]'
    return (
        f"{what} ({shown}), which can run code and is never loaded here; where its code is, and if you trust it: "
        f"torch.save({value}, 'best_cnn_model.pth')"
    )


def _show(head: bytes) -> str:
    return ascii(head[:60].decode("utf-8", "replace"))


_DETECTORS: tuple[Callable[[bytes, Path], str | None], ...] = (
    _by_text,
    _by_archive,
    _by_pickle,
    _by_signature,
    _by_structure,
)
