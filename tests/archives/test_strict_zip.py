"""Archives that Java and Python would read differently, and such that unpack to too much; and that honest ones pass."""

import io
import shutil
import stat
import struct
import subprocess
import tracemalloc
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cifar.archives.strict_zip import StrictZip, ZipAmbiguous, ZipDamaged


@dataclass
class Part:
    """One entry, of which each header can lie for itself."""

    name: bytes
    content: bytes = b"content"
    method: int = 0
    flags: int = 0
    mode: int = 0o100644
    extra: bytes = b""
    comment: bytes = b""
    before: bytes = b""  # bytes that stand in front of the local header
    behind: bytes = b""  # and behind the content
    local: dict[str, Any] = field(default_factory=dict)  # what the local header says otherwise
    listed: bool = True
    offset: int | None = None
    size: int | None = None
    packed: bytes | None = None


def write_zip(
    *parts: Part, comment: bytes = b"", behind: bytes = b"", gap: bytes = b"", count: int | None = None
) -> bytes:
    file, directory = bytearray(), bytearray()
    listed = 0
    for part in parts:
        packed = part.content if part.packed is None else part.packed
        if part.method == 8 and part.packed is None:
            deflater = zlib.compressobj(9, wbits=-15)
            packed = deflater.compress(part.content) + deflater.flush()
        crc, size = zlib.crc32(part.content), len(part.content) if part.size is None else part.size
        file += part.before
        offset = len(file)
        own: dict[str, Any] = {
            "name": part.name,
            "method": part.method,
            "flags": part.flags,
            "crc": crc,
            "packed": len(packed),
        }
        own |= {"size": size, "extra": part.extra} | part.local
        file += struct.pack("<4s5H3L2H", b"PK\3\4", 20, own["flags"], own["method"], 0, 33, own["crc"], own["packed"],
                            own["size"], len(own["name"]), len(own["extra"]))  # fmt: skip
        file += own["name"] + own["extra"] + packed + part.behind
        if part.listed:
            listed += 1
            directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 0x0314, 20, part.flags, part.method, 0, 33, crc,
                                     len(packed), size, len(part.name), len(part.extra), len(part.comment), 0, 0,
                                     part.mode << 16, offset if part.offset is None else part.offset)  # fmt: skip
            directory += part.name + part.extra + part.comment
    count = listed if count is None else count
    file += gap
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(file), len(comment))
    return bytes(file + directory + end + comment + behind)


def read(content: bytes) -> StrictZip:
    opened = StrictZip(io.BytesIO(content))
    opened.verify()
    return opened


ONE, TWO = Part(b"handler.py", b"one"), Part(b"model.pt", b"two" * 100, method=8)
UNICODE_PATH = struct.pack("<2HBL", 0x7075, 13, 1, zlib.crc32(b"handler.py")) + b"other.py"
DESCRIPTOR = struct.pack("<4s3L", b"PK\7\x08", zlib.crc32(b"one"), 3, 3)
LINK = stat.S_IFLNK | 0o777


def test_honest_zip_files_are_read(tmp_path):
    opened = read(write_zip(ONE, TWO, Part(b"lib/", b"", mode=0o040755), Part("lib/é.py".encode(), flags=0x800)))
    assert opened.names == ["handler.py", "model.pt", "lib/é.py"]
    assert opened.read("model.pt", 300) == b"two" * 100
    for name in ("a.py", "sub/b.bin"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(name.encode() * 5000)
    for made in (
        shutil.make_archive(str(tmp_path / "made"), "zip", tmp_path / "in"),
        _pack_by_hand(tmp_path / "byhand.zip", zipfile.ZIP_DEFLATED),
        _pack_by_hand(tmp_path / "stored.zip", zipfile.ZIP_STORED),
    ):
        assert set(read(Path(made).read_bytes()).names) >= {"a.py", "sub/b.bin"}


def _pack_by_hand(path: Path, method: int) -> Path:
    with zipfile.ZipFile(path, "w", method) as packed:
        packed.writestr("a.py", b"")
        packed.writestr("sub/b.bin", bytes(3_000_000))
    return path


@pytest.mark.skipif(shutil.which("zip") is None, reason="Info-ZIP is not installed")
def test_what_info_zip_packs_is_read(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n" * 1000)
    subprocess.run(["zip", "-q", "made.zip", "a.py"], cwd=tmp_path, check=True)
    assert read((tmp_path / "made.zip").read_bytes()).names == ["a.py"]


AMBIGUOUS = {
    "a name twice": write_zip(ONE, Part(b"handler.py", b"other")),
    "a name in two cases": write_zip(ONE, Part(b"Handler.PY")),
    "a name in two forms of Unicode": write_zip(
        Part("é.py".encode(), flags=0x800), Part("e\u0301.py".encode(), flags=0x800)
    ),
    "a backslash": write_zip(ONE, Part(b"lib\\x.py")),
    "a dot in between": write_zip(ONE, Part(b"./handler.py")),
    "two slashes": write_zip(ONE, Part(b"lib//x.py")),
    "a file that is a folder too": write_zip(ONE, Part(b"handler.py/x")),
    "outside": write_zip(ONE, Part(b"../x.py")),
    "absolute": write_zip(ONE, Part(b"/etc/x")),
    "a drive": write_zip(ONE, Part(b"c:x")),
    "a zero in the name": write_zip(ONE, Part(b"model.pt\0.txt")),
    "a line in the name": write_zip(ONE, Part(b"model\n.pt")),
    "a name that is no UTF-8": write_zip(ONE, Part(b"\xff\xfe.py", flags=0x800)),
    "a name in an old code page": write_zip(ONE, Part("é.py".encode("cp437"))),
    "no name": write_zip(ONE, Part(b"")),
    "a symbolic link": write_zip(ONE, Part(b"model.pt", b"/etc/passwd", mode=LINK)),
    "a device": write_zip(ONE, Part(b"model.pt", b"", mode=stat.S_IFCHR | 0o666)),
    "set-user-id": write_zip(ONE, Part(b"run", mode=0o104755)),
    "a folder with content": write_zip(ONE, Part(b"lib/", b"x", mode=0o040755)),
    "a local header that is not listed": write_zip(ONE, Part(b"handler2.py", listed=False), TWO),
    "one that is not listed, at the end": write_zip(ONE, TWO, Part(b"handler.py", b"evil", listed=False)),
    "one that is not listed, at the beginning": write_zip(Part(b"handler.py", b"evil", listed=False), ONE),
    "another name in the local header": write_zip(ONE, Part(b"a.py", local={"name": b"b.py"})),
    "another size in the local header": write_zip(ONE, Part(b"a.py", local={"size": 3})),
    "no size in the local header": write_zip(ONE, Part(b"a.py", local={"size": 0, "packed": 0, "crc": 0})),
    "another checksum in the local header": write_zip(ONE, Part(b"a.py", local={"crc": 7})),
    "another method in the local header": write_zip(ONE, Part(b"a.py", local={"method": 8})),
    "bytes before": write_zip(Part(b"handler.py", before=b"#!/bin/sh\n")),
    "bytes between": write_zip(ONE, Part(b"a.py", before=b"bytes")),
    "bytes before the directory": write_zip(ONE, TWO, gap=b"gap"),
    "bytes in the directory": write_zip(ONE, TWO, count=1),
    "two entries of one content": write_zip(Part(b"a.py", b"x" * 50), Part(b"a.py2", b"x" * 50, offset=0)),
    "entries that overlap": write_zip(ONE, Part(b"model.pt", b"x" * 100), Part(b"other", offset=60)),
    "sizes behind the content": write_zip(Part(b"handler.py", b"one", flags=8, behind=DESCRIPTOR)),
    "encrypted": write_zip(ONE, Part(b"a.py", flags=1)),
    "strongly encrypted": write_zip(ONE, Part(b"a.py", flags=0x41)),
    "encrypted for the local header only": write_zip(ONE, Part(b"a.py", local={"flags": 1})),
    "an unknown method": write_zip(ONE, Part(b"a.py", method=99)),
    "LZMA": write_zip(ONE, Part(b"a.py", method=14)),
    "ZIP64 sizes": write_zip(ONE, Part(b"a.py", extra=struct.pack("<2H2Q", 1, 16, 7, 7))),
    "another name in an extra field": write_zip(Part(b"handler.py", extra=UNICODE_PATH)),
    "an extra field that is cut off": write_zip(ONE, Part(b"a.py", extra=b"UT\xff\xff")),
    "a comment of an entry": write_zip(ONE, Part(b"a.py", comment=b"PK\5\6")),
    "an end for ZIP64": write_zip(ONE, Part(b"a.py", extra=b"UT" + struct.pack("<H", 20) + b"PK\6\7".ljust(20, b"\0"))),
    "a size of 4 GB": write_zip(ONE, Part(b"a.py", b"", method=8, size=0xFFFFFFF0)),
}


@pytest.mark.parametrize("what", AMBIGUOUS)
def test_what_readers_take_differently_is_rejected(what):
    with pytest.raises(ZipAmbiguous) as rejection:
        read(AMBIGUOUS[what])
    assert str(rejection.value).isprintable()
    assert len(str(rejection.value)) < 400


DAMAGED = {
    "nothing": b"",
    "another file": b"hello" * 100,
    "bytes behind": write_zip(ONE, TWO, behind=b"behind"),
    "another zip file behind": write_zip(ONE) + write_zip(TWO),
    "cut off": write_zip(ONE, TWO)[:-1],
    "a changed byte": write_zip(ONE, TWO).replace(b"one", b"onf"),
    "a comment with another end in it": write_zip(ONE, comment=write_zip(TWO)),
    "content behind the end of its deflation": write_zip(
        Part(b"a", b"x" * 9, method=8, packed=zlib.compress(b"x" * 9, wbits=-15) + b"hidden")
    ),
    "a deflation without an end": write_zip(
        Part(b"a", b"x" * 9, method=8, packed=zlib.compress(b"x" * 9, wbits=-15)[:-1])
    ),
    "no deflation": write_zip(Part(b"a", b"x" * 9, method=8, packed=b"\xff" * 20)),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_damaged_is_said_to_be(what):
    with pytest.raises(ZipDamaged):
        read(DAMAGED[what])


def test_content_that_grows_beyond_its_size_is_given_up_at_once():
    """The headers say 10 bytes; there are 200 million of them. No more than a piece of it is unpacked."""
    packed = write_zip(Part(b"a", bytes(200_000_000), method=8, size=10))
    tracemalloc.start()
    with pytest.raises(ZipDamaged, match="does not fit its size"):
        read(packed)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_what_would_unpack_to_too_much_is_rejected_before_it_is_unpacked():
    bomb = write_zip(*(Part(b"%d" % number, bytes(100_000_000), method=8) for number in range(2)))
    with pytest.raises(ZipAmbiguous, match=r"it unpacks to 200,000,000 bytes; expected at most 67,108,864"):
        StrictZip(io.BytesIO(bomb))
    opened = read(write_zip(Part(b"a", bytes(2_000_000), method=8)))  # small, however well it is packed
    with pytest.raises(ZipAmbiguous, match="has 2,000,000 bytes; expected at most 1,000"):
        opened.read("a", 1000)


def test_a_directory_without_end_is_rejected():
    many = write_zip(*(Part(b"%d" % number, b"") for number in range(10_001)))
    with pytest.raises(ZipAmbiguous, match=r"lists 10,001 entries"):
        read(many)
