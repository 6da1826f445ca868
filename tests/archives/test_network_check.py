"""Networks that do what no network has to do, in real TorchScript; each is run as a deployment's check runs it."""

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from cifar.archives.inspection import inspect_archive
from cifar.archives.network_check import check_network
from cifar.common.errors import ArchiveRejected
from tests.archives.test_inspection import replace_network
from tests.support.tiny import copy_handler, tiny_archive

ISOLATED = sys.platform == "linux" and os.uname().machine in ("x86_64", "aarch64")
pytestmark = pytest.mark.skipif(not ISOLATED, reason="needs seccomp")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    return tiny_archive(folder, "1.5", 5, copy_handler(folder / "handler"))


@pytest.fixture
def archive(built, tmp_path) -> Path:
    return Path(shutil.copy(built, tmp_path / "cifar-1.5.mar"))


class WritesFile(torch.nn.Module):
    """Make a file, or write into one that is there: shared memory that is mapped to it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        place = torch.from_file(self.path, shared=True, size=16, dtype=torch.uint8)
        return torch.ones(images.shape[0], 10) * place.fill_(65)[0]  # what has no effect is not run


class WritesWhenLoaded(WritesFile):
    """Do it as soon as the file is loaded, before anybody asks for an answer."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.place = torch.zeros(16, dtype=torch.uint8)

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = state[1]
        self.place = torch.from_file(state[0], shared=True, size=16, dtype=torch.uint8).fill_(65)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.ones(images.shape[0], 10) * self.place[0]


class TakesMemory(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.ones(100_000_000_000, dtype=torch.uint8)[:320].reshape(32, 10).float()


class TakesMemoryBitByBit(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        held = images.flatten()
        while held.numel() < 100_000_000_000:
            held = torch.cat([held, held])
        return held[:320].reshape(32, 10).float()


class NeverEnds(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        number = torch.zeros(1)
        while bool(number >= 0):
            number = number + torch.rand(1)
        return number


class PrintsForever(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        number = torch.zeros(1)
        while bool(number < 1):
            print(images)  # noqa: T201
            number = number * 1
        return number


class Complains(torch.nn.Module):
    """Give a reason with a colour and two lines."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[0] == 0, "a reason\n\x1b[31mwith two lines"
        return images


def pack_network(archive: Path, network: torch.nn.Module) -> Path:
    return replace_network(archive, network)


@pytest.mark.parametrize("kind", [WritesFile, WritesWhenLoaded])
def test_a_network_cannot_make_a_file(archive, tmp_path, kind):
    victim = tmp_path / "new"
    pack_network(archive, kind(str(victim)))
    victim.unlink(missing_ok=True)  # made when it was scripted
    with pytest.raises(ArchiveRejected, match=r"it cannot be run: .*unable to open file .* Permission denied"):
        inspect_archive(archive)
    assert not victim.exists()


def test_a_network_cannot_change_a_file_that_is_there_nor_write_into_its_own_folder(archive, tmp_path):
    victim = tmp_path / "authorized_keys"
    victim.write_text("ssh-ed25519 of its owner")
    pack_network(archive, WritesFile(str(victim)))
    for path in (victim, "./own"):
        pack_network(archive, WritesFile(str(path)))
        with pytest.raises(ArchiveRejected, match="Permission denied"):
            inspect_archive(archive)
    assert victim.read_text() == "ssh-ed25519 of its owner"


def test_the_same_network_does_write_where_nothing_stops_it(tmp_path):
    """What the tests above would show without the sandbox."""
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(WritesFile(str(tmp_path / "written"))), file)
    file.seek(0)
    torch.jit.load(file)(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    assert (tmp_path / "written").read_bytes() == b"A" * 16


@pytest.mark.parametrize("kind", [TakesMemory, TakesMemoryBitByBit])
def test_a_network_cannot_take_all_memory(archive, kind):
    pack_network(archive, kind())
    before = psutil.virtual_memory().available
    with pytest.raises(ArchiveRejected, match=r"it cannot be run: .*(can't allocate memory|alloc)"):
        inspect_archive(archive)
    assert psutil.virtual_memory().available > before - (3 << 30)


@pytest.mark.parametrize("kind", [NeverEnds, PrintsForever])
def test_a_network_that_does_not_end_is_ended(archive, monkeypatch, kind):
    monkeypatch.setattr("cifar.archives.network_check.TIMEOUT_S", 12.0)
    pack_network(archive, kind())
    with pytest.raises(ArchiveRejected, match=r"did not answer within 12 s"):
        inspect_archive(archive)
    assert not [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


def test_what_a_network_says_of_itself_is_one_line_without_control_characters(archive):
    pack_network(archive, Complains())
    with pytest.raises(ArchiveRejected) as rejection:
        inspect_archive(archive)
    assert str(rejection.value).isprintable()


FORBIDDEN = """
import os, signal, socket, subprocess, sys, resource
from cifar.archives.sandbox import lock_down, set_limits
import threading
started, go = threading.Event(), threading.Event()
found = []
def attempt(name, action):
    try:
        action()
    except (OSError, RuntimeError, ValueError) as error:
        return
    found.append(name)
def old_thread():
    started.set(); go.wait()
    attempt("a file, by a thread from before", lambda: open("late", "w"))
thread = threading.Thread(target=old_thread); thread.start(); started.wait()
parent, there = os.getppid(), sys.argv[1]
set_limits(1000); lock_down()
go.set(); thread.join()
attempt("a file", lambda: open("new", "w"))
attempt("appending", lambda: open(there, "a"))
attempt("truncating", lambda: os.truncate(there, 0))
attempt("removing", lambda: os.unlink(there))
attempt("renaming", lambda: os.rename(there, there + "2"))
attempt("a link", lambda: os.symlink(there, "link"))
attempt("a folder", lambda: os.mkdir("folder"))
attempt("a mode", lambda: os.chmod(there, 0o777))
attempt("a date", lambda: os.utime(there))
attempt("a FIFO", lambda: os.mkfifo("fifo"))
attempt("a connection", lambda: socket.create_connection(("127.0.0.1", int(sys.argv[2])), 2))
attempt("a datagram", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
attempt("a Unix socket", lambda: socket.socket(socket.AF_UNIX))
attempt("a command", lambda: subprocess.run(["/bin/true"]))
attempt("a fork", lambda: os._exit(0) if os.fork() == 0 else None)
attempt("exec", lambda: os.execv("/bin/true", ["true"]))
attempt("a signal", lambda: os.kill(parent, signal.SIGWINCH))
attempt("higher limits", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, 1 << 40)))
attempt("shared memory", lambda: open("/dev/shm/cifar", "w"))
attempt("memory that is a file", lambda: os.memfd_create("x"))
attempt("user namespaces", lambda: os.fdopen(os.open("/proc/self/uid_map", os.O_WRONLY)))
print(open(there).read(), found)
"""


def test_a_process_that_is_locked_down_can_read_and_nothing_else(tmp_path):
    there = tmp_path / "there"
    there.write_text("readable")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-c", FORBIDDEN, str(there), str(listener.getsockname()[1])]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("readable []\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_the_check_gets_neither_our_environment_nor_our_files(archive, tmp_path, monkeypatch):
    seen = tmp_path / "seen"
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nenv > {seen}\nls -l /proc/self/fd >> {seen}\n")
    program.chmod(0o755)
    monkeypatch.setattr("cifar.archives.network_check.sys.executable", str(program))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with archive.open("rb"):
        assert check_network(archive, archive, signed=False) is None
    assert "secret" not in seen.read_text()
    assert archive.name not in seen.read_text()


def test_without_isolation_only_a_signed_archive_has_its_network_run(built, monkeypatch, tmp_path):
    """A machine without seccomp: what the child then does is stood in for by a module that finds none."""
    stand_in = tmp_path / "sitecustomize.py"
    stand_in.write_text("import platform\nplatform.machine = lambda: 'riscv64'\n")
    own = check_environment(monkeypatch, tmp_path)
    assert "PYTHONPATH" in own
    candidate = inspect_archive(built)
    assert candidate.not_run is not None and "riscv64 has no seccomp" in candidate.not_run
    assert inspect_archive(built, signed=True).not_run is None


def check_environment(monkeypatch, folder: Path) -> dict[str, str]:
    from cifar.archives import network_check

    own = network_check._environment(folder)
    own["PYTHONPATH"] += os.pathsep + str(folder)
    monkeypatch.setattr(network_check, "_environment", lambda _: own)
    return own


def test_the_check_ends_with_whoever_asked_for_it(archive, tmp_path):
    pack_network(archive, NeverEnds())
    code = (
        "from pathlib import Path; from cifar.archives.inspection import inspect_archive; "
        f"inspect_archive(Path({str(archive)!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[2]) as asking:
        child = _wait_for(lambda: _busy_child(asking.pid), 60)
        asking.send_signal(signal.SIGKILL)
    assert _wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 20)


def _busy_child(pid: int) -> psutil.Process | None:
    children = psutil.Process(pid).children()
    locked = [child for child in children if "Seccomp:\t2" in Path(f"/proc/{child.pid}/status").read_text()]
    return locked[0] if locked else None


def _wait_for(condition, timeout_s: float):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come to this")
