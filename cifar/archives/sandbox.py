"""Takes away from a process what a foreign network does not need: files to write, the network, other processes.

On Linux, by a filter of system calls that stays for the life of the process (seccomp). It is a list of what is allowed:
to compute, to read, and to write to what is open already. docs/adr/0014 says why.
"""

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
from pathlib import Path

CPU_S = 60  # of one check; with 32 images it takes a second or two
MAX_OUTPUT = 1 << 16  # bytes that the process may write into a file
_MEMORY = 2 << 30  # bytes beyond what PyTorch itself takes
_FILES = 64

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Numbers of system calls: on x86-64, on 64-bit ARM; None: there is none.
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "poll": (7, None),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "access": (21, None),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "dup": (32, 23),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "exit": (60, 93),
    "uname": (63, 160),
    "fcntl": (72, 25),
    "getcwd": (79, 17),
    "readlink": (89, None),
    "gettimeofday": (96, 169),
    "getrlimit": (97, 163),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "times": (100, 153),
    "getuid": (102, 174),
    "getgid": (104, 176),
    "geteuid": (107, 175),
    "getegid": (108, 177),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "getdents64": (217, 61),
    "set_tid_address": (218, 96),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "newfstatat": (262, 79),
    "readlinkat": (267, 78),
    "faccessat": (269, 48),
    "set_robust_list": (273, 99),
    "getcpu": (309, 168),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
    "statx": (332, 291),
    "rseq": (334, 293),
    "faccessat2": (439, 439),
}
_OPEN, _OPENAT, _CLONE, _CLONE3 = (2, None), (257, 56), (56, 220), (435, 435)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | 0x400000  # O_TMPFILE's own bit
_CLONE_THREAD = 0x10000

# Classic BPF: load a word of the call, jump if it is equal, jump if it has a bit, return.
_LOAD, _EQUAL, _HAS_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # where they stand
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _ALL_THREADS = 1, 1


class NoIsolation(Exception):
    """This machine has no filter of system calls, or not for its processor."""


def set_limits(model_size: int) -> None:
    """Bound what this process takes from now on: memory, time of the CPU, sizes and number of files.

    Args:
        model_size: of the file that it is going to load, bytes.
    """
    _limit(resource.RLIMIT_CPU, CPU_S)
    _limit(resource.RLIMIT_FSIZE, MAX_OUTPUT)
    _limit(resource.RLIMIT_NOFILE, _FILES)
    _limit(resource.RLIMIT_CORE, 0)
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + _MEMORY + 4 * model_size)


def lock_down() -> None:
    """Have the system reject, from now on and for all threads, whatever is not on the list.

    Raises:
        NoIsolation: nothing has changed.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _AUDIT_ARCH:
        raise NoIsolation(f"{platform.system()} on {machine} has no seccomp that is known here")
    code = _assemble(machine)
    filters = ctypes.create_string_buffer(b"".join(code), 8 * len(code))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(filters)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # the parent is gone
    libc.syscall.argtypes = [ctypes.c_long, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_void_p]
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(
        _SECCOMP[machine], _SET_MODE_FILTER, _ALL_THREADS, ctypes.cast(program, ctypes.c_void_p)
    ):
        raise NoIsolation(f"seccomp: {os.strerror(ctypes.get_errno())}")
    try:
        os.close(os.open(os.devnull, os.O_RDWR))
    except PermissionError:
        return
    raise NoIsolation("seccomp has no effect")


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _assemble(machine: str) -> list[bytes]:
    column = list(_AUDIT_ARCH).index(machine)
    code = [_instruction(_LOAD, _ARCHITECTURE), _instruction(_EQUAL, _AUDIT_ARCH[machine], 1, 0)]
    code += [_instruction(_RETURN, _KILL), _instruction(_LOAD, _NUMBER)]
    for numbers in _ALLOWED.values():
        code += _when(numbers[column], [_instruction(_RETURN, _ALLOW)])
    code += _when(_OPEN[column], _unless(1, _WRITING, errno.EACCES))
    code += _when(_OPENAT[column], _unless(2, _WRITING, errno.EACCES))
    # Threads, no processes; for clone3, whose flags cannot be looked at, the C library then takes clone.
    code += _when(_CLONE[column], [
        _instruction(_LOAD, _ARGUMENTS),
        _instruction(_HAS_BIT, _CLONE_THREAD, 0, 1),
        _instruction(_RETURN, _ALLOW),
        _instruction(_RETURN, _ERROR | errno.EPERM),
    ])  # fmt: skip
    code += _when(_CLONE3[column], [_instruction(_RETURN, _ERROR | errno.ENOSYS)])
    return [*code, _instruction(_RETURN, _ERROR | errno.EPERM)]


def _when(number: int | None, then: list[bytes]) -> list[bytes]:
    """Do something for one system call; `then` ends with a return."""
    return [] if number is None else [_instruction(_EQUAL, number, 0, len(then)), *then]


def _unless(argument: int, bits: int, error: int) -> list[bytes]:
    """Allow a call unless an argument has one of these bits."""
    return [
        _instruction(_LOAD, _ARGUMENTS + 8 * argument),
        _instruction(_HAS_BIT, bits, 0, 1),
        _instruction(_RETURN, _ERROR | error),
        _instruction(_RETURN, _ALLOW),
    ]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
