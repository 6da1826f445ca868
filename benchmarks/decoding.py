"""Measures how long decoding takes, a row a kind of body.

Usage: python -m benchmarks.decoding [--output FILE] [--rounds N]

Both sides of every ratio take turns within the same run, because times of two runs on a shared machine do not compare.
"""

import io
import json
import os
import platform
import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import PIL
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from benchmarks.machine import processor
from cifar.common.console import run_stage
from cifar.common.files import atomic_write
from cifar.common.project import ROOT
from decoding import BadInput, decode_request

RESULTS = ROOT / "benchmarks" / "results" / "decoding.md"
IMAGE_LENGTH = 32 * 32 * 3
# Seconds that one side of one round takes: long against the clock's resolution, short against the scheduler's turns.
_TRIAL_S = 0.002
# Seconds for the two sides of one row; a photograph therefore gets fewer rounds, and the table says how many.
_ROW_S = 6.0

Decode = Callable[[], object]


def main(
    output: Annotated[Path, typer.Option(help="the table to write")] = RESULTS,
    rounds: Annotated[int, typer.Option(help="how often each side of a row is timed", min=5)] = 101,
) -> None:
    """Time every kind of body, and write the table."""
    console = Console()
    bodies = [measure_body(kind, rounds) for kind in track(make_kinds(), "bodies", console=console, transient=True)]
    page = render(bodies, rounds)
    with atomic_write(output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    console.print(page, markup=False, highlight=False, soft_wrap=True)


# Timing --------------------------------------------------------------------------------------------------------------


class Spread(NamedTuple):
    """Quartiles."""

    low: float
    median: float
    high: float


class Comparison(NamedTuple):
    """Two functions timed in turns: microseconds a call of each, and how many times as long the first takes."""

    first_us: Spread
    second_us: Spread
    ratio: Spread
    rounds: int


def compare(first: Decode, second: Decode, rounds: int) -> Comparison:
    """Time two functions in turns; which of them begins changes every round, so that neither has the warmer cache."""
    timers = (timeit.Timer(first), timeit.Timer(second))
    calls = [max(1, round(_TRIAL_S / min(timer.repeat(3, 1)))) for timer in timers]
    once_s = sum(timer.timeit(count) for timer, count in zip(timers, calls, strict=True))
    rounds = max(5, min(rounds, round(_ROW_S / once_s)))
    times_us = np.empty((rounds, 2))
    for number in range(rounds):
        for side in (0, 1) if number % 2 else (1, 0):
            times_us[number, side] = timers[side].timeit(calls[side]) / calls[side] * 1e6
    ratios = times_us[:, 0] / times_us[:, 1]
    return Comparison(_spread(times_us[:, 0]), _spread(times_us[:, 1]), _spread(ratios), rounds)


def _spread(values: NDArray[np.float64]) -> Spread:
    low, median, high = np.percentile(values, (25, 50, 75))
    return Spread(float(low), float(median), float(high))


# A row a kind of body -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of body, as TorchServe hands it over: JSON parsed, all else as a bytearray."""

    name: str
    content_type: str
    body: object
    images: int
    alone: str  # what `decode_alone` calls
    decode_alone: Decode  # the shortest code to the same pixels, which checks nothing


class MeasuredKind(NamedTuple):
    """A kind and its times; `comparison` is None where the decoder does not take the kind, and `rejection` says why."""

    kind: Kind
    comparison: Comparison | None
    rejection: str


def measure_body(kind: Kind, rounds: int) -> MeasuredKind:
    """Time the decoder on a body that it takes."""

    def decode() -> Any:
        return decode_request(kind.body, kind.content_type, {})

    try:
        shape = decode().images.shape
    except BadInput as rejection:
        return MeasuredKind(kind, None, rejection.code)
    if shape != (kind.images, 32, 32, 3):
        raise ValueError(f"{kind.name} was decoded to {shape}, expected {kind.images} images")
    return MeasuredKind(kind, compare(decode, kind.decode_alone, rounds), "")


def make_kinds() -> list[Kind]:
    """Make a body of every kind."""
    return [*_json_kinds(), *_raw_kinds(), *_image_file_kinds(), *_npy_kinds(), *_v2_kinds()]


def _json_kinds() -> list[Kind]:
    def kind(name: str, key: str, value: Any, images: int = 1) -> Kind:
        # Through text and back, so that numbers are as new as those of a request.
        body = json.loads(json.dumps({key: value}))
        return Kind(name, "application/json", body, images, "numpy.array(list)", partial(np.array, body[key]))

    image, sixteen = _images(1)[0], _images(16)
    return [
        kind("JSON, flat whole numbers", "image", image.ravel().tolist()),
        kind("JSON, nested whole numbers", "image", image.tolist()),
        kind("JSON, flat fractions 0–1", "image", _fractions()),
        kind("JSON, 16 images flat", "images", sixteen.reshape(16, -1).tolist(), 16),
    ]


def _raw_kinds() -> list[Kind]:
    def kind(count: int) -> Kind:
        body = bytearray(_images(count).tobytes())

        def decode_alone() -> object:
            return np.frombuffer(body, dtype=np.uint8).reshape(-1, 32, 32, 3)

        return Kind(_count("raw", count), "application/octet-stream", body, count, "numpy.frombuffer", decode_alone)

    return [kind(1), kind(256)]


def _image_file_kinds() -> list[Kind]:
    def kind(name: str, pixels: NDArray[np.uint8], format_: str) -> Kind:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format_, quality=90)
        body = bytearray(file.getvalue())

        def decode_alone() -> object:
            image = Image.open(io.BytesIO(body)).convert("RGB")
            if image.size != (32, 32):
                image = image.resize((32, 32), Image.Resampling.BICUBIC)
            return np.asarray(image)

        title = f"{name} ({len(body) / 1000:,.1f} kB)"
        return Kind(title, f"image/{format_.lower()}", body, 1, "Pillow", decode_alone)

    small = _images(1)[0]
    return [
        kind("PNG 32×32", small, "PNG"),
        kind("JPEG 32×32", small, "JPEG"),
        kind("JPEG 4032×3024, a telephone's photograph", _photograph(4032, 3024), "JPEG"),
    ]


def _npy_kinds() -> list[Kind]:
    def kind(array_: NDArray[Any]) -> Kind:
        file = io.BytesIO()
        np.save(file, array_, allow_pickle=False)
        body = bytearray(file.getvalue())

        def decode_alone() -> object:
            return np.load(io.BytesIO(body), allow_pickle=False)

        name = _count(f".npy {array_.dtype}", len(array_))
        return Kind(name, "application/x-npy", body, len(array_), "numpy.load", decode_alone)

    return [kind(_images(1)), kind(_images(256)), kind(_images(1).astype(np.float32))]


def _v2_kinds() -> list[Kind]:
    def kind(datatype: str, numbers: list[float]) -> Kind:
        tensor = {"name": "images", "shape": [1, 32, 32, 3], "datatype": datatype, "data": numbers}
        body = json.loads(json.dumps({"inputs": [tensor]}))
        data = body["inputs"][0]["data"]
        name = f"KServe V2 JSON, flat {datatype}"
        return Kind(name, "application/json", body, 1, "numpy.array(list)", partial(np.array, data))

    return [kind("UINT8", _whole_numbers()), kind("FP32", _fractions())]


def _count(name: str, count: int) -> str:
    return f"{name}, {count} image{'s' if count > 1 else ''}"


def _images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def _whole_numbers() -> list[Any]:
    numbers: list[Any] = json.loads(json.dumps(_images(1).ravel().tolist()))
    return numbers


def _fractions() -> list[Any]:
    """Float32 in 0–1, as ToTensor leaves them, printed and read again."""
    scaled = _images(1).ravel().astype(np.float32) / np.float32(255)
    numbers: list[Any] = json.loads(json.dumps(scaled.tolist()))
    return numbers


def _photograph(width: int, height: int) -> NDArray[np.uint8]:
    """Make smooth areas with some grain: pure noise would be three times the size of a photograph."""
    rng = np.random.default_rng(11)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = rng.integers(-6, 7, smooth.shape, dtype=np.int16)
    pixels: NDArray[np.uint8] = (smooth + grain).clip(0, 255).astype(np.uint8)
    return pixels


# The page -------------------------------------------------------------------------------------------------------------


def render(bodies: Sequence[MeasuredKind], rounds: int) -> str:
    """Write the table and all that is needed to make and judge it."""
    return "\n".join(
        [
            "# Decoding",
            "",
            f"- made by `python -m benchmarks.decoding --rounds {rounds}` on {datetime.now(UTC):%Y-%m-%d}",
            f"- {processor()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}; "
            f"Python {platform.python_version()}, numpy {np.__version__}, Pillow {PIL.__version__}",
            "- microseconds a call: the median, in brackets the quartiles; both sides of a ratio take turns, each "
            f"timed in every round for at least {_TRIAL_S * 1000:g} ms; the ratio is the median of the rounds' ratios",
            "",
            "## A request's body, `decode_request`",
            "",
            "Bodies as TorchServe hands them over: JSON parsed, all else as bytes. *Alone* is the shortest code that "
            "comes to the same pixels, and checks nothing.",
            "",
            "| body | decoded, µs | alone | µs | ratio | rounds |",
            "|---|---:|---|---:|---:|---:|",
            *map(_body_row, bodies),
            "",
        ]
    )


def _body_row(row: MeasuredKind) -> str:
    kind, comparison = row.kind, row.comparison
    if comparison is None:
        return f"| {kind.name} | not supported (`{row.rejection}`) | {kind.alone} | | | |"
    first, second = _show(comparison.first_us), _show(comparison.second_us)
    ratio = f"{comparison.ratio.median:.2f}"
    return f"| {kind.name} | {first} | {kind.alone} | {second} | {ratio} | {comparison.rounds} |"


def _show(spread: Spread) -> str:
    digits = 0 if spread.median >= 100 else 1
    low, median, high = (f"{value:,.{digits}f}" for value in spread)
    return f"{median} ({low}–{high})"


if __name__ == "__main__":
    run_stage(main)
