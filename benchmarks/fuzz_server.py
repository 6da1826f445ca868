"""Sends mutated bodies of every kind to a running server, and fails on anything but 200, 4xx and steady workers.

Usage: python -m benchmarks.fuzz_server [--requests N] [--seed N] [--url URL] [--management-url URL]

Request n of a seed is the same in every run, whichever connection sends it. Exit code 1 when anything was found; the
bodies that did it are then in the folder of --findings, as hex beneath their headers.

One thing is counted apart and fails only with --strict: TorchServe parses forms itself, before any handler, and answers
with 500 to those that it cannot read (docs/adr/0006). No code of this project runs for such a request.
"""

import itertools
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import psutil
import requests
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bad_input import STATUS_OF_CODE
from benchmarks.fuzz_bodies import (
    MAX_REQUEST_BYTES,
    PYTHON_INSIDES,
    Request,
    good_requests,
    make_bad_request,
)
from cifar.cli.options import ManagementUrlOption, UrlOption
from cifar.client.management import ManagementClient
from cifar.common.console import run_stage

FINDINGS = Path(tempfile.gettempdir()) / "cifar-fuzz"
CONNECTIONS = 16
MAX_GROWTH = 0.05  # of a worker's memory, over the last half of a run
# Two batches of different sizes may differ in the last bits of a float32.
CONFIDENCE_TOLERANCE = 1e-5

_FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")
# Seen, each with a body that makes it. "InternalServerException" is none of them: that is a worker which has died.
_FORM_EXCEPTIONS = (
    "ErrorDataDecoderException",
    "StringIndexOutOfBoundsException",
    "ArrayIndexOutOfBoundsException",
)
_FORM_FAILURE = "500 (form)"
_ANSWER_TIMEOUT_S = 60.0
_GOOD_EVERY = 10  # one request in N is a good one, whose answer is known
_MOST_FINDINGS = 20  # a server that fails on everything need not be asked 20,000 times
_MEMORY_SAMPLES = 200


def main(
    url: UrlOption,
    management_url: ManagementUrlOption,
    count: Annotated[int, typer.Option("--requests", help="how many to send", min=1)] = 20_000,
    seed: Annotated[int, typer.Option(help="names the run: the same seed sends the same requests")] = 1,
    limit_s: Annotated[float, typer.Option(help="seconds after which the run ends, unfinished")] = 1800.0,
    findings: Annotated[Path, typer.Option(help="where offending bodies go")] = FINDINGS,
    strict: Annotated[bool, typer.Option("--strict", help="fail on TorchServe's own 500 to broken forms too")] = False,
) -> None:
    """Send mutated bodies and say what came back."""
    console = Console()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"seed {seed}", total=count)
        report = fuzz(
            url, management_url, count, seed, limit_s=limit_s, strict=strict, on_answer=lambda: progress.advance(task)
        )
    console.print(counts_table(report), memory_line(report), highlight=False)
    for finding in report.findings:
        console.print(f"[bold red]{finding.what}[/] – {save(finding, seed, findings)}", highlight=False, soft_wrap=True)
    for failure in report.failures:
        console.print(f"[bold red]{failure}[/]", highlight=False, soft_wrap=True)
    if report.findings or report.failures:
        sys.exit(1)
    but = f", but for {report.form_failures:,} forms that TorchServe itself could not read" * bool(report.form_failures)
    console.print(f"Only 200 and 4xx{but}; steady answers, the same workers, no growth.", style="green")


class Answer(NamedTuple):
    """What came back."""

    status: int
    content_type: str
    body: bytes


class Finding(NamedTuple):
    """A request whose answer must not be; `answer` is None where none came."""

    number: int  # of the request in its run; -1 before the first
    what: str
    request: Request
    answer: Answer | None


@dataclass
class Report:
    """A run's outcome; it passed when `findings` and `failures` are empty."""

    planned: int
    strict: bool = False
    seconds: float = 0.0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # by kind and status
    findings: list[Finding] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  # of the workers or the run, not of one request
    memory: dict[int, list[int]] = field(default_factory=dict)  # bytes by worker, in the order sampled

    @property
    def sent(self) -> int:
        """How many requests were sent."""
        return sum(self.counts.values())

    @property
    def form_failures(self) -> int:
        """How many broken forms TorchServe answered with 500 by itself."""
        return sum(number for (_kind, status), number in self.counts.items() if status == _FORM_FAILURE)


def fuzz(
    url: str,
    management_url: str,
    count: int,
    seed: int,
    *,
    limit_s: float,
    strict: bool = False,
    on_answer: Callable[[], None] = lambda: None,
) -> Report:
    """Send `count` requests over 16 connections and judge every answer.

    Args:
        url: of the inference API.
        management_url: of the management API, which names the workers.
        count: how many requests.
        seed: the same one sends the same requests.
        limit_s: seconds after which no more are sent; the report then has a failure.
        strict: whether TorchServe's own 500 to broken forms is a finding.
        on_answer: called after each answer, from any thread.
    """
    workers = Workers(management_url)
    run = _Run(url, Report(count, strict), seed, workers, time.monotonic() + limit_s, on_answer)
    started = time.monotonic()
    run.learn_good_answers()
    numbers = itertools.count()  # shared: next() of it is atomic
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for connection in [pool.submit(run.send_many, numbers) for _ in range(CONNECTIONS)]:
            connection.result()
    report = run.report
    report.seconds = time.monotonic() - started
    report.memory = workers.memory
    if report.sent < count and not report.findings:
        report.failures.append(f"only {report.sent:,} of {count:,} requests were sent within {limit_s:g} s")
    report.failures += workers.check_same(worker_pids(management_url))
    report.failures += [what for pid, sizes in workers.memory.items() if (what := check_growth(pid, sizes))]
    return report


class _Run:
    """What the connections of one run share."""

    def __init__(
        self,
        url: str,
        report: Report,
        seed: int,
        workers: "Workers",
        deadline: float,
        on_answer: Callable[[], None],
    ) -> None:
        self.url = url
        self.report = report
        self.seed = seed
        self.workers = workers
        self.deadline = deadline
        self.on_answer = on_answer
        self.good = good_requests()
        self.answers: list[Answer] = []  # to `good`, in its order
        self._lock = threading.Lock()

    def learn_good_answers(self) -> None:
        """Send every good request once; one that is not answered with 200 is a finding."""
        with _session() as session:
            for request in self.good:
                answer = exchange(session, self.url, request)
                self.answers.append(answer)
                if answer.status != 200:
                    self._judge(-1, request, answer, "a good request was rejected")

    def send_many(self, numbers: Iterable[int]) -> None:
        """Send what is left to send, on one connection."""
        with _session() as session:
            for index in numbers:
                done = index >= self.report.planned or len(self.report.findings) >= _MOST_FINDINGS
                if done or time.monotonic() > self.deadline:
                    return
                self._send(session, index)
                if index % max(1, self.report.planned // _MEMORY_SAMPLES) == 0:
                    self.workers.sample_memory()
                self.on_answer()

    def _send(self, session: requests.Session, index: int) -> None:
        expected = None
        if index % _GOOD_EVERY == 0:
            place = index // _GOOD_EVERY % len(self.good)
            request, expected = self.good[place], self.answers[place]
        else:
            request = make_bad_request(self.good, self.seed, index)
        try:
            answer = exchange(session, self.url, request)
        except requests.RequestException as error:
            self._judge(index, request, None, f"no answer: {type(error).__name__}: {error}")
            return
        what = None
        if self.report.strict or not is_form_failure(answer, request):
            what = check_answer(answer, len(request.body))
        if what is None and expected is not None:
            what = check_same(answer, expected)
        self._judge(index, request, answer, what)

    def _judge(self, index: int, request: Request, answer: Answer | None, what: str | None) -> None:
        with self._lock:
            self.report.counts[request.kind, _status(request, answer)] += index >= 0
            if what is not None:
                self.report.findings.append(Finding(index, what, request, answer))


def _status(request: Request, answer: Answer | None) -> str:
    if answer is None:
        return "none"
    return _FORM_FAILURE if is_form_failure(answer, request) else str(answer.status)


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # a proxy in the environment is not for loopback
    return session


def exchange(session: requests.Session, url: str, request: Request) -> Answer:
    """Send one request, once more on a new connection where the kept one was closed meanwhile.

    TorchServe closes the connection after each 4xx, and the next request may be on its way already.

    Raises:
        requests.RequestException: no answer the second time either, or none within 60 s.
    """
    headers = dict(request.headers)
    if request.content_type is not None:
        headers["Content-Type"] = request.content_type
    for attempt in (1, 2):
        data: Any = iter([request.body]) if request.chunked else request.body
        try:
            response = session.request(
                request.method, url + request.path, data=data, headers=headers, timeout=_ANSWER_TIMEOUT_S
            )
        except requests.Timeout:  # before ConnectionError: some are both, and a server that hangs is not asked twice
            raise
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            session.close()
            if attempt == 2:
                raise
        else:
            return Answer(response.status_code, response.headers.get("Content-Type", ""), response.content)
    raise AssertionError("unreachable")


# Judging --------------------------------------------------------------------------------------------------------------


def check_answer(answer: Answer, sent_bytes: int) -> str | None:
    """Hold one answer against the HTTP contract; None where it keeps to it, else what is wrong."""
    if answer.status == 413 and not answer.body and sent_bytes > MAX_REQUEST_BYTES:
        return None  # TorchServe's network layer, before any handler
    if answer.status != 200 and not 400 <= answer.status < 500:
        return f"status {answer.status}"
    if answer.content_type != "application/json":
        return f"status {answer.status} with Content-Type {answer.content_type!r}"
    try:
        document = json.loads(answer.body)
    except ValueError:
        return f"status {answer.status} with a body that is not JSON"
    if not isinstance(document, dict):
        return f"status {answer.status} with JSON that is no object"
    return _check_prediction_form(document) if answer.status == 200 else _check_error_form(document, answer.status)


def is_form_failure(answer: Answer, request: Request) -> bool:
    """Tell TorchServe's own 500 to a form that it cannot read from one that a handler made.

    Its parser (Netty's) throws on an empty field name, an empty boundary, or a percent sign that stands alone, as in
    `curl --data-binary @cat.png` without a content type; TorchServe 0.12.0 answers that with the exception's name.
    """
    if answer.status != 500 or not (request.content_type or "").lower().startswith(_FORM_TYPES):
        return False
    try:
        document = json.loads(answer.body)
    except ValueError:
        return False
    # Without a message where Java has thrown it so often that it no longer fills it in.
    own_form = isinstance(document, dict) and {"code", "type"} <= document.keys() <= {"code", "type", "message"}
    return own_form and document["type"] in _FORM_EXCEPTIONS


def check_same(answer: Answer, expected: Answer) -> str | None:
    """Compare the answer to a good request with the first one to it."""
    if answer.status != expected.status:
        return f"a good request was answered with {answer.status}, at first with {expected.status}"
    if not _alike(json.loads(answer.body), json.loads(expected.body)):
        return "a good request was answered otherwise than at first"
    return None


def check_growth(pid: int, sizes: Sequence[int]) -> str | None:
    """Compare a worker's memory at the beginning and the end of a run's last half, by medians of a fifth of it each.

    Medians, because a single sample may fall into the decoding of a large image.
    """
    half = sizes[len(sizes) // 2 :]
    window = max(1, len(half) // 5)
    if len(half) < 2 * window:
        return f"worker {pid} was sampled {len(sizes)} times, too seldom to know whether it grows"
    before, after = median(half[:window]), median(half[-window:])
    if after > before * (1 + MAX_GROWTH):
        return f"worker {pid} grew by {after / before - 1:.1%} over the last half: {_mib(before)} to {_mib(after)}"
    return None


def _check_prediction_form(document: dict[str, Any]) -> str | None:
    if "outputs" in document:  # KServe V2
        outputs = document["outputs"]
        keys = {"name", "shape", "datatype", "data"}
        good = isinstance(outputs, list) and bool(outputs) and all(keys <= set(output) for output in outputs)
        return None if good else "status 200 with outputs that are not in the form of KServe V2"
    predictions = document.get("predictions", [document])
    if not isinstance(predictions, list) or not predictions or not all(map(_is_prediction, predictions)):
        return "status 200 without predictions in the contract's form"
    return None


def _is_prediction(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("prediction"), str):
        return False
    return type(value.get("class_index")) is int and 0 <= value.get("confidence", -1) <= 1


def _check_error_form(document: dict[str, Any], status: int) -> str | None:
    error = document.get("error")
    if isinstance(error, str):  # as the Open Inference Protocol has it
        code, _, message = error.partition(": ")
        error = {"code": code, "message": message}
    if not isinstance(error, dict) or not isinstance(error.get("message"), str) or not error["message"]:
        return f"status {status} without error.code and error.message"
    if STATUS_OF_CODE.get(error.get("code", "")) != status:
        return f"status {status} with the code {error.get('code')!r}, which is not in the contract with that status"
    if PYTHON_INSIDES.search(error["message"]):
        return f"status {status} with the insides of Python: {error['message']}"
    return None


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= CONFIDENCE_TOLERANCE
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    return bool(one == other)


# The workers ----------------------------------------------------------------------------------------------------------


def worker_pids(management_url: str) -> list[int]:
    """Ask the management API for the process ids of the default version's workers."""
    with ManagementClient(management_url) as management:
        return sorted(worker.pid for worker in management.describe().workers if worker.pid is not None)


class Workers:
    """The workers at the start of a run, and their memory since."""

    def __init__(self, management_url: str) -> None:
        self.pids = worker_pids(management_url)
        self.memory: dict[int, list[int]] = {pid: [] for pid in self.pids}
        self._lock = threading.Lock()

    def sample_memory(self) -> None:
        """Note the resident memory of each worker; one that has died is found at the end."""
        with self._lock:
            for pid, sizes in self.memory.items():
                try:
                    sizes.append(psutil.Process(pid).memory_info().rss)
                except psutil.Error:
                    continue

    def check_same(self, pids: list[int]) -> list[str]:
        """Compare with the process ids at the end."""
        return [] if pids == self.pids else [f"the workers were {self.pids} and are {pids}: at least one has died"]


# What is shown --------------------------------------------------------------------------------------------------------


def counts_table(report: Report) -> Table:
    """Lay out the answers by kind of body and status."""
    statuses = sorted({status for _kind, status in report.counts})
    table = Table(title=f"{report.sent:,} requests in {report.seconds:.0f} s", box=SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for heading in ("kind", *statuses, "all"):
        table.add_column(heading, justify="left" if heading == "kind" else "right", no_wrap=True)
    kinds = sorted({kind for kind, _status in report.counts})
    for kind in kinds:
        row = [report.counts[kind, status] for status in statuses]
        table.add_row(kind, *(f"{number:,}" if number else "" for number in (*row, sum(row))))
    sums = [sum(report.counts[kind, status] for kind in kinds) for status in statuses]
    table.add_section()
    table.add_row("all", *(f"{number:,}" for number in (*sums, sum(sums))))
    return table


def memory_line(report: Report) -> str:
    """Tell the workers' memory: at first, and around the last half."""
    lines = []
    for pid, sizes in report.memory.items():
        half = sizes[len(sizes) // 2 :]
        window = max(1, len(half) // 5)
        if half:
            first, last = median(half[:window]), median(half[-window:])
            lines.append(
                f"worker {pid}: {_mib(sizes[0])} at first, {_mib(first)} to {_mib(last)} over the last half "
                f"({last / first - 1:+.1%}), {_mib(max(sizes))} at most"
            )
    return "\n".join(lines)


def save(finding: Finding, seed: int, folder: Path) -> Path:
    """Write the offending request and its answer to a file, so that it can be sent again."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"seed-{seed}-request-{finding.number}.txt"
    request, answer = finding.request, finding.answer
    lines = [finding.what, f"{request.method} {request.path}", f"Content-Type: {request.content_type}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    lines += [f"answer: {answer.status} {answer.content_type} {answer.body[:2000]!r}" if answer else "answer: none"]
    file.write_text("\n".join([*lines, "", request.body.hex()]) + "\n", encoding="utf-8")
    return file


def _mib(size: float) -> str:
    return f"{size / 2**20:,.1f} MiB"


if __name__ == "__main__":
    run_stage(main)
