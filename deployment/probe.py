"""Loads a TorchScript file and compares its answers with its certificate: `python -m deployment.probe model.pt`.

Ends with 0, or with 1 and the reason as the last line of its standard error.
"""

import sys
from pathlib import Path

import torch

from deployment.archive import read_model_file
from deployment.certificate import find_difference


def main(path: Path) -> None:
    """Compare; raises SystemExit with the reason where the network cannot be run, or differs."""
    torch.set_num_threads(1)  # the server needs the cores
    _metadata, certificate = read_model_file(path.name, path.read_bytes())
    try:
        network = torch.jit.load(str(path), map_location="cpu").eval()
        with torch.inference_mode():
            got = network(torch.from_numpy(certificate.images)).numpy()
    except (RuntimeError, ValueError, AttributeError, TypeError) as error:
        raise SystemExit(f"it cannot be run: {' '.join(str(error).split())[-300:]}") from error
    difference = find_difference(certificate.probabilities, got)
    if difference is not None:
        raise SystemExit(difference)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
