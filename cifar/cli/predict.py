"""`cifar predict`: what a person sends, and the table or the JSON that they get."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from cifar.cli.options import JsonOption, UrlOption
from cifar.client.connection import DEFAULT_TIMEOUT_S
from cifar.client.image_inputs import ImageArray, ImageFile, list_files, open_input
from cifar.client.inference import InferenceClient, Prediction
from cifar.client.samples import SampleSource, choose_samples
from cifar.common.console import print_json
from cifar.common.errors import CifarError, InputUnreadable, ModelNotFound, RequestRejected, TokenRejected

# Fewer are answered before an eye has found the bar.
_PROGRESS_FROM_INPUTS = 50
_BAR_CELLS = 10


@dataclass(frozen=True)
class UnreadableFile:
    """A file that cannot be sent; it has its row like the others."""

    name: str
    error: str


# One request each, except the file that never became one.
Source = ImageFile | ImageArray | UnreadableFile


@dataclass(frozen=True)
class Row:
    """What came of one image: a prediction, or an error."""

    name: str
    prediction: Prediction | None = None
    error: str | None = None


def predict(
    url: UrlOption,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="Images, .npy arrays (N, 32, 32, 3), folders of them. None: ten samples."),
    ] = None,
    version: Annotated[str | None, typer.Option(help="Model version to ask; the server's default if left out.")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, max=10, help="Show the top K classes.")] = None,
    as_json: JsonOption = False,
    samples: Annotated[
        SampleSource, typer.Option(help="Without files: which ten images to send. test-set may download 170 MB.")
    ] = SampleSource.AUTO,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for each answer.")] = DEFAULT_TIMEOUT_S,
) -> None:
    """Predict what images show."""
    if files and samples is not SampleSource.AUTO:
        raise typer.BadParameter("choose between files and samples", param_hint="--samples")
    sources, note = _collect_sources(files or [], samples)
    rows: list[Row] = []
    versions: list[str] = []
    try:
        with InferenceClient(url, timeout_s) as client, _show_progress(sources) as advance:
            for source in sources:
                rows += _predict_source(client, source, version, top_k, versions)
                advance(_count_images(source))
    finally:
        # What was answered before the server went away is worth showing; main() then says that it went.
        if rows and as_json:
            _print_json(rows, versions, note)
        elif rows:
            _print_table(rows, versions, note, url)
    if any(row.error is not None for row in rows):
        raise typer.Exit(1)


def _collect_sources(files: Sequence[Path], samples: SampleSource) -> tuple[list[Source], str | None]:
    """Return what to send, request by request, and a note on it for the person who asked."""
    if files:
        return [source for path in files for source in _open_path(path)], None
    chosen = choose_samples(samples)
    return list(chosen.pixels.split()), chosen.note


def _open_path(path: Path) -> Iterator[Source]:
    try:
        found = list_files(path)
    except InputUnreadable as error:
        yield UnreadableFile(str(path), _say_error(str(path), error))
        return
    for file in found:
        try:
            source = open_input(file)
        except InputUnreadable as error:
            yield UnreadableFile(str(file), _say_error(str(file), error))
        else:
            yield from source.split() if isinstance(source, ImageArray) else [source]


def _count_images(source: Source) -> int:
    return len(source.names) if isinstance(source, ImageArray) else 1


@contextmanager
def _show_progress(sources: Sequence[Source]) -> Iterator[Callable[[int], None]]:
    """Yield what moves a bar on standard error, or nothing where the wait is short."""
    total = sum(_count_images(source) for source in sources)
    with Progress(console=Console(stderr=True), transient=True, disable=total <= _PROGRESS_FROM_INPUTS) as progress:
        task = progress.add_task("Predicting", total=total)
        yield lambda images: progress.advance(task, images)


def _predict_source(
    client: InferenceClient, source: Source, version: str | None, top_k: int | None, versions: list[str]
) -> list[Row]:
    """Ask about one source; add the version that answered to `versions` where it is new."""
    if isinstance(source, UnreadableFile):
        return [Row(source.name, error=source.error)]
    try:
        if isinstance(source, ImageArray):
            names = source.names
            answer = client.predict(source.images, top_k=top_k, version=version, max_value=source.max_value)
        else:
            names = (source.name,)
            answer = client.predict(source.read(), top_k=top_k, version=version)
    except (ModelNotFound, TokenRejected):
        raise  # so would every further request
    except (InputUnreadable, RequestRejected) as error:
        name = _name_request(source)
        return [Row(name, error=_say_error(name, error))]
    if answer.model_version is not None and answer.model_version not in versions:
        versions.append(answer.model_version)
    return [Row(name, prediction) for name, prediction in zip(names, answer.predictions, strict=True)]


def _say_error(name: str, error: CifarError) -> str:
    """The sentence without the name that its row bears already."""
    return str(error).removeprefix(f"{name}: ")


def _name_request(source: ImageFile | ImageArray) -> str:
    """One name for all that a rejected request held."""
    if isinstance(source, ImageFile):
        return source.name
    first, last = source.names[0], source.names[-1]
    return first if first == last else f"{first} to {last}"


def _print_json(rows: Sequence[Row], versions: Sequence[str], note: str | None) -> None:
    if note:
        Console(stderr=True).print(note, soft_wrap=True)
    print_json({"model_version": ", ".join(versions) or None, "predictions": [_describe_row(row) for row in rows]})


def _describe_row(row: Row) -> dict[str, Any]:
    if row.prediction is None:
        return {"file": row.name, "error": row.error}
    prediction = row.prediction
    described: dict[str, Any] = {
        "file": row.name,
        "label": prediction.label,
        "class_index": prediction.class_index,
        "confidence": prediction.confidence,
    }
    if prediction.top_k:
        described["top_k"] = [guess._asdict() for guess in prediction.top_k]
    return described


def _print_table(rows: Sequence[Row], versions: Sequence[str], note: str | None, url: str) -> None:
    # Text, not str: rich would take `[a]` in a file's name for markup.
    table = Table("File", "Label", "Confidence")
    guesses = any(row.prediction.top_k for row in rows if row.prediction)
    if guesses:
        table.add_column("Further guesses")
    for row in rows:
        if row.prediction is None:
            table.add_row(_fold(row.name), Text("error", style="bold red"), Text(row.error or "", style="red"))
            continue
        best = row.prediction
        cells = [_fold(row.name), Text(best.label, style="bold"), _draw_bar(best.confidence)]
        if guesses:
            cells.append(Text(", ".join(f"{guess.label} {guess.confidence:.1%}" for guess in best.top_k[1:])))
        table.add_row(*cells)
    console = Console()
    console.print(table)
    console.print(Text(_sum_up(rows, versions, url)), soft_wrap=True)
    if note:
        console.print(Text(note, style="yellow"), soft_wrap=True)


def _sum_up(rows: Sequence[Row], versions: Sequence[str], url: str) -> str:
    answered = sum(row.prediction is not None for row in rows)
    if not answered:
        return f"None of {len(rows)} predicted"  # perhaps no server was asked
    model = f"model version {', '.join(versions)}" if versions else "unknown model version"
    return f"{answered} of {len(rows)} predicted by {model} at {url}"


def _fold(name: str) -> Text:
    return Text(name, overflow="fold")  # a path that is cut short is of no use


def _draw_bar(confidence: float) -> Text:
    filled = round(confidence * _BAR_CELLS)
    return Text.assemble(
        f"{confidence:6.1%} ", ("█" * filled, "green"), ("░" * (_BAR_CELLS - filled), "dim"), no_wrap=True
    )
