"""Lets atheris look for a body on which `decode_request` or `decode_form` raises anything but a proper BadInput.

Usage: python -m benchmarks.fuzz_decoder [--seconds N] [--findings FOLDER]

atheris is guided by coverage: it keeps the bodies that reach new lines of handler/ and changes those further. It is no
dependency of this project, since it has wheels for Linux only:  .venv/bin/pip install atheris==3.0.0

A body that fails is left in the folder of --findings; `python -m benchmarks.fuzz_decoder --replay FILE` shows it again.
"""

import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from cifar.common.project import HANDLER

FINDINGS = Path(tempfile.gettempdir()) / "cifar-fuzz"
# Above the seeds, of which JSON with an image of fractions is the largest.
MAX_INPUT_BYTES = 80_000
MAX_MESSAGE_CHARACTERS = 2_000
REFUSALS = (400, 413, 415, 422)

_HANDLER_MODULES = [file.stem for file in HANDLER.glob("*.py") if file.stem != "cifar_handler"]
_TYPES = (
    None, "application/json", "application/octet-stream", "application/x-npy", "image/png", "image/jpeg", "text/plain",
    "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "IMAGE/JPG; a=b", "application/pdf",
)  # fmt: skip
_OPTIONS: tuple[dict[str, str], ...] = (
    {}, {}, {"top_k": "3"}, {"max_value": "1"}, {"max_value": "255"}, {"top_k": "x"}, {"other": "1"},
)  # fmt: skip
_NEXT_FIELD = b"\n--\n"


def main(
    seconds: Annotated[int, typer.Option(help="how long to look", min=1)] = 60,
    seed: Annotated[int, typer.Option(help="of the random changes", min=1)] = 1,
    findings: Annotated[Path, typer.Option(help="where failing bodies go")] = FINDINGS,
    replay: Annotated[Path | None, typer.Option(help="run this body only, without atheris")] = None,
) -> None:
    """Look for a body that the decoder does not stand."""
    if replay is not None:
        decode_or_refuse(replay.read_bytes())
        return
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        Console(stderr=True).print("atheris is not installed. Add it: .venv/bin/pip install atheris==3.0.0")
        sys.exit(2)
    with atheris.instrument_imports(include=_HANDLER_MODULES, enable_loader_override=False):
        importlib.import_module("decoding")
    findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cifar-corpus-") as corpus:
        write_seeds(Path(corpus))
        flags = [
            f"-max_total_time={seconds}",
            f"-seed={seed}",
            f"-max_len={MAX_INPUT_BYTES}",
            "-timeout=20",  # seconds for one body
            "-rss_limit_mb=4096",
            f"-artifact_prefix={findings}/",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *flags, corpus], decode_or_refuse)
        atheris.Fuzz()  # ends the process


def decode_or_refuse(data: bytes) -> None:
    """Decode one body; the first two bytes of `data` say as what.

    Raises:
        AssertionError: a rejection or an image that is not as the contract says.
        Exception: whatever the decoder let through.
    """
    decoding: Any = importlib.import_module("decoding")
    if len(data) < 2:
        return
    content_type, options, body = _TYPES[data[0] % len(_TYPES)], _OPTIONS[data[1] % len(_OPTIONS)], data[2:]
    decode: Callable[[], Any]
    if decoding.is_form(content_type):
        fields, headers = as_fields(body), {"content-type": content_type, "content-length": str(len(body))}

        def decode() -> Any:
            return decoding.decode_form(fields, headers)
    else:
        handed_over = as_handed_over(body, content_type)

        def decode() -> Any:
            return decoding.decode_request(handed_over, content_type, options)

    try:
        decoded = decode()
    except decoding.BadInput as rejection:
        check_rejection(rejection)
    else:
        check_images(decoded.images)


def as_handed_over(body: bytes, content_type: str | None) -> object:
    """Do what TorchServe does to a body before the handler sees it."""
    try:
        if content_type == "application/json":
            return json.loads(body.decode("utf-8"))
        if content_type is not None and content_type.startswith("text"):
            return body.decode("utf-8")
    except (ValueError, RecursionError):
        pass  # handed on as it came
    return bytearray(body)


def as_fields(body: bytes) -> dict[str, object]:
    """Cut bytes into the fields of a form: the first line names a field, `_NEXT_FIELD` ends it."""
    fields: dict[str, object] = {}
    for piece in body.split(_NEXT_FIELD) if body else ():
        name, _line_end, content = piece.partition(b"\n")
        as_json = name.endswith(b"!")  # a part of the type JSON comes parsed
        fields[name.decode("utf-8", "replace")] = as_handed_over(content, "application/json" if as_json else None)
    return fields


def check_rejection(rejection: Any) -> None:
    """Demand what every rejection must be: a status of the contract, and a message that can be sent."""
    from benchmarks.fuzz_bodies import PYTHON_INSIDES

    message = rejection.message
    message.encode("utf-8")  # a lone surrogate raises
    if rejection.status not in REFUSALS:
        raise AssertionError(f"status {rejection.status} with the code {rejection.code}")
    if PYTHON_INSIDES.search(message):
        raise AssertionError(f"{rejection.code} with the insides of Python: {message}")
    if not message or len(message) > MAX_MESSAGE_CHARACTERS:
        raise AssertionError(f"{rejection.code} with a message of {len(message):,} characters")


def check_images(images: Any) -> None:
    """Demand what the network takes: 1 to 256 images of numbers in 0–255."""
    if images.dtype not in (np.uint8, np.float32) or images.shape[1:] != (32, 32, 3) or not 1 <= len(images) <= 256:
        raise AssertionError(f"decoded to {images.dtype} {images.shape}")
    if not (images.min() >= 0 and images.max() <= 255):  # also where one is NaN
        raise AssertionError(f"decoded to numbers from {images.min()} to {images.max()}")


def write_seeds(corpus: Path) -> None:
    """Write a good body of every kind, from which atheris sets out."""
    from benchmarks.fuzz_bodies import good_requests

    images = []
    for number, request in enumerate(good_requests()):
        if request.content_type in _TYPES and len(request.body) <= MAX_INPUT_BYTES:
            start = bytes((_TYPES.index(request.content_type), 0))
            (corpus / f"good-{number}").write_bytes(start + request.body)
        if request.content_type is not None and request.content_type.startswith("image/"):
            images.append(request.body)
    (corpus / "form").write_bytes(_form_seed(images[:2]))


def _form_seed(images: Sequence[bytes]) -> bytes:
    fields = [b"%d\n%s" % numbered for numbered in enumerate(images)]
    fields += [b"top_k\n3", b"json!\n[1, 2]"]
    return bytes((_TYPES.index("multipart/form-data; boundary=x"), 0)) + _NEXT_FIELD.join(fields)


if __name__ == "__main__":
    typer.run(main)
