"""External checkpoints: finds the state dict in what other people's training scripts save, and says what it took."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
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
    """Return the only state dict, though of another network, whose names the caller's message tells."""
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
