"""Compares a network with its reference outputs: `python -m cifar.archives.check_in_subprocess model.pt`.

A network is a program: it runs here with as few rights as a process can have (cifar/archives/sandbox.py). With
`--signed` behind the file, it runs even where a machine cannot take the others away. Ends with 0, 1 or NO_ISOLATION;
the reason is the last line of its standard error.
"""

import sys
from pathlib import Path

import torch

from cifar.archives.model_file import read_extra_files, read_model_file
from cifar.archives.network_check import NO_ISOLATION
from cifar.archives.reference_outputs import ReferenceOutputs, find_difference
from cifar.archives.sandbox import NoIsolation, lock_down, set_limits
from cifar.common.errors import ArchiveRejected


def main(path: Path, signed: bool) -> None:
    """Compare; raises SystemExit with the reason where the network cannot be run, or differs."""
    torch.set_num_threads(1)  # the server needs the cores
    try:
        _metadata, reference = read_model_file(path.name, path)
        extra = read_extra_files(path)
    except ArchiveRejected as error:
        raise SystemExit(str(error)) from None
    set_limits(path.stat().st_size)
    try:
        lock_down()
    except NoIsolation as error:
        if not signed:
            sys.stderr.write(f"{error}\n")
            raise SystemExit(NO_ISOLATION) from None
    _compare(path, reference, extra)


def _compare(path: Path, reference: ReferenceOutputs, extra: dict[str, bytes]) -> None:
    found: dict[str, bytes | str] = dict.fromkeys(extra, b"")
    try:
        network = torch.jit.load(str(path), map_location="cpu", _extra_files=found).eval()
        with torch.inference_mode():
            got = network(torch.from_numpy(reference.images)).numpy()
    except (RuntimeError, ValueError, AttributeError, TypeError, MemoryError, OSError) as error:
        raise SystemExit(f"it cannot be run: {' '.join(str(error).split())[-300:]}") from None
    # What PyTorch, and so the server, reads is what was looked at.
    if {name: value.encode() if isinstance(value, str) else value for name, value in found.items()} != extra:
        raise SystemExit(f"PyTorch reads other {' and '.join(extra)} in it than Python does")
    difference = find_difference(reference.probabilities, got)
    if difference is not None:
        raise SystemExit(difference)


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--signed" in sys.argv[2:])
