"""Reads zip files that every reader reads alike, and no others.

Java unpacks an archive by walking through its local headers, Python looks entries up in the central directory at its
end. Where the two disagree, what was checked is not what runs. Here they must agree entry by entry, with no byte
before, between or after them, and all sizes are looked at before anything is unpacked.
"""

import os
import re
import stat
import struct
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

MAX_FILE = 1 << 30  # bytes of a zip file; weights of this kind of network are some MB
MAX_UNPACKED = 1 << 30  # bytes of all entries together
_MAX_RATIO = 100  # of those to the file's; weights are packed to nine tenths, Python to a quarter
_RATIO_MATTERS = 64 << 20  # bytes; fewer are no burden, however well they are packed
_MAX_ENTRIES = 10_000
_MAX_DIRECTORY = 8 << 20  # bytes of the central directory
_CHUNK = 1 << 20

_STORED, _DEFLATED = 0, 8
# How hard it was packed (bits 1 and 2), and names in UTF-8 (bit 11). Others mean: encrypted, or sizes that stand behind
# the content, where only a reader of the central directory finds them.
_ALLOWED_FLAGS = 0x0806
_UTF8 = 0x0800
# Dates and owners, as Info-ZIP writes them. Others replace sizes (ZIP64) or names.
_ALLOWED_EXTRA = (0x5455, 0x7875)
_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX

_END = struct.Struct("<4s4H2LH")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")


class ZipDamaged(ValueError):
    """No zip file, or one that is truncated or damaged."""


class ZipAmbiguous(ValueError):
    """A zip file whose readers could disagree, or that unpacks to more than is allowed."""


@dataclass(frozen=True)
class _Entry:
    name: str
    method: int
    crc: int
    packed: int  # bytes in the file
    size: int  # bytes unpacked
    header: int  # where its local header begins
    start: int  # where its content begins


class StrictZip:
    """A zip file, of which only the headers have been read; entries are unpacked piece by piece, and checked.

    Args:
        file: regular, open for reading; no process may write to it meanwhile.

    Raises:
        ZipDamaged, ZipAmbiguous: says what was found.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        size = file.seek(0, os.SEEK_END)
        if size > MAX_FILE:
            raise ZipAmbiguous(f"it has {size:,} bytes; expected at most {MAX_FILE:,}")
        begin, entries = self._read_directory(size)
        self._entries = {entry.name: entry for entry in self._read_headers(entries, begin)}
        _check_names(entries)
        _check_sizes(entries, size)

    @property
    def names(self) -> list[str]:
        """Names of the files in it, as they stand in the file; folders are left out."""
        return [name for name in self._entries if not name.endswith("/")]

    def size(self, name: str) -> int:
        """Return how many bytes an entry unpacks to; raises KeyError."""
        return self._entries[name].size

    def read(self, name: str, limit: int) -> bytes:
        """Return an entry of at most `limit` bytes; raises KeyError, ZipDamaged, and ZipAmbiguous for a larger one."""
        if self.size(name) > limit:
            raise ZipAmbiguous(f"its entry {_show(name)} has {self.size(name):,} bytes; expected at most {limit:,}")
        return b"".join(self.chunks(name))

    def verify(self) -> None:
        """Unpack everything and throw it away; raises ZipDamaged where an entry is not what its checksum says."""
        for name in self._entries:
            for _chunk in self.chunks(name):
                pass

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield an entry's content; raises ZipDamaged in the middle or at the end, so use nothing before that."""
        entry = self._entries[name]
        crc = total = 0
        for chunk in self._inflate(entry) if entry.method == _DEFLATED else self._packed(entry):
            total += len(chunk)
            crc = zlib.crc32(chunk, crc)
            if total > entry.size:
                break
            yield chunk
        if total != entry.size or crc != entry.crc:
            raise ZipDamaged(f"damaged in {_show(name)}: its content does not fit its size and checksum")

    def _packed(self, entry: _Entry) -> Iterator[bytes]:
        self._file.seek(entry.start)
        left = entry.packed
        while left:
            chunk = self._file.read(min(left, _CHUNK))
            if not chunk:
                raise ZipDamaged("truncated while it was read")
            left -= len(chunk)
            yield chunk

    def _inflate(self, entry: _Entry) -> Iterator[bytes]:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            for packed in self._packed(entry):
                while packed:
                    if inflater.eof:
                        raise ZipDamaged(f"damaged in {_show(entry.name)}: its content ends before its size says")
                    yield inflater.decompress(packed, _CHUNK)
                    packed = inflater.unconsumed_tail
            while not inflater.eof and (rest := inflater.decompress(b"", _CHUNK)):
                yield rest
        except zlib.error as error:
            raise ZipDamaged(f"damaged in {_show(entry.name)}: {error}") from None
        if not inflater.eof or inflater.unused_data:
            raise ZipDamaged(f"damaged in {_show(entry.name)}: its content does not end where its size says")

    def _read_directory(self, size: int) -> tuple[int, list[_Entry]]:
        """Return where the central directory begins, and what it lists; `start` is not known yet."""
        if size < _END.size:
            raise ZipDamaged(f"it has {size} bytes, fewer than the smallest zip file")
        signature, disk, first, here, count, length, begin, comment = _END.unpack(self._at(size - _END.size, _END.size))
        if signature != b"PK\x05\x06":
            raise ZipDamaged("no end of a zip file where it should be: it is cut off, or something follows it")
        if disk or first or here != count or comment or count == 0xFFFF or 0xFFFFFFFF in (length, begin):
            raise ZipAmbiguous("its end is in a form that readers take differently (comment, parts or ZIP64)")
        if begin + length + _END.size != size:
            raise ZipDamaged("its central directory is not where its end says")
        if count > _MAX_ENTRIES or length > _MAX_DIRECTORY:
            raise ZipAmbiguous(f"it lists {count:,} entries in {length:,} bytes; expected at most {_MAX_ENTRIES:,}")
        content = self._at(begin, length)
        if content[-20:-16] == b"PK\x06\x07":  # where readers look for the end in the form ZIP64
            raise ZipAmbiguous("it has a second end, in the form ZIP64")
        entries, position = [], 0
        for _ in range(count):
            entry, position = _read_entry(content, position)
            entries.append(entry)
        if position != length:
            raise ZipAmbiguous("its central directory has bytes that list nothing")
        return begin, entries

    def _read_headers(self, entries: list[_Entry], end: int) -> Iterator[_Entry]:
        """Walk through the local headers as Java does, and demand what the central directory lists, byte by byte."""
        position = 0
        for entry in sorted(entries, key=lambda entry: entry.header):
            if entry.header != position:
                raise ZipAmbiguous(
                    f"its entry {_show(entry.name)} begins at byte {entry.header:,}, expected {position:,}: entries "
                    "overlap, or bytes stand between them that the central directory does not list"
                )
            if position + _LOCAL.size > end:
                raise ZipDamaged(f"the header of {_show(entry.name)} is cut off")
            signature, _version, flags, method, _time, _date, crc, packed, size, name_length, extra_length = (
                _LOCAL.unpack(self._at(position, _LOCAL.size))
            )
            if signature != b"PK\x03\x04":
                raise ZipDamaged(f"no header of {_show(entry.name)} at byte {position:,}")
            start = position + _LOCAL.size + name_length + extra_length
            position = start + packed
            if position > end:
                raise ZipAmbiguous(f"its entry {_show(entry.name)} overlaps the central directory")
            behind = self._at(start - name_length - extra_length, name_length + extra_length)
            name = _decode_name(behind[:name_length], flags)
            _check_flags(entry.name, flags)
            if (name, method, crc, packed, size) != (entry.name, entry.method, entry.crc, entry.packed, entry.size):
                raise ZipAmbiguous(f"the header of {_show(entry.name)} says otherwise than the central directory")
            _check_extra(entry.name, behind[name_length:])
            yield _Entry(name, method, crc, packed, size, entry.header, start)
        if position != end:
            raise ZipAmbiguous("bytes stand before its central directory that it does not list")

    def _at(self, position: int, length: int) -> bytes:
        self._file.seek(position)
        content = self._file.read(length)
        if len(content) != length:
            raise ZipDamaged("truncated while it was read")
        return content


def _read_entry(content: bytes, position: int) -> tuple[_Entry, int]:
    """Read one entry of the central directory; return it, and where the next begins."""
    if position + _CENTRAL.size > len(content):
        raise ZipDamaged("its central directory is cut off")
    (signature, _by, _needed, flags, method, _time, _date, crc, packed, size, name_length, extra_length, comment, disk,
     _internal, attributes, header) = _CENTRAL.unpack_from(content, position)  # fmt: skip
    if signature != b"PK\x01\x02":
        raise ZipDamaged("its central directory is damaged")
    begin = position + _CENTRAL.size
    end = begin + name_length + extra_length + comment
    if end > len(content):
        raise ZipDamaged("its central directory is cut off")
    name = _decode_name(content[begin : begin + name_length], flags)
    _check_flags(name, flags)
    _check_extra(name, content[begin + name_length : begin + name_length + extra_length])
    if method not in (_STORED, _DEFLATED):
        raise ZipAmbiguous(f"its entry {_show(name)} is packed by method {method}; expected 0 (stored) or 8 (deflated)")
    if comment or disk:
        raise ZipAmbiguous(f"its entry {_show(name)} has a comment, or lies on another disk")
    if method == _STORED and packed != size:
        raise ZipAmbiguous(f"its entry {_show(name)} is stored, and has two sizes")
    _check_kind(name, attributes >> 16, size)
    return _Entry(name, method, crc, packed, size, header, 0), end


def _decode_name(name: bytes, flags: int) -> str:
    try:
        return name.decode("utf-8" if flags & _UTF8 else "ascii")
    except UnicodeDecodeError:
        raise ZipAmbiguous(f"it has a name that is no text: {name[:80]!r}") from None


def _check_flags(name: str, flags: int) -> None:
    if flags & 0x2041:
        raise ZipAmbiguous(f"its entry {_show(name)} is encrypted")
    if flags & ~_ALLOWED_FLAGS:
        raise ZipAmbiguous(
            f"its entry {_show(name)} has the flags {flags:#06x}, as of a zip file that was written as a stream: its "
            "sizes stand behind its content"
        )


def _check_extra(name: str, extra: bytes) -> None:
    while extra:
        kind, length = struct.unpack_from("<2H", extra) if len(extra) >= 4 else (0, 0)
        if kind not in _ALLOWED_EXTRA or length > len(extra) - 4:
            raise ZipAmbiguous(f"its entry {_show(name)} has the extra field {kind:#06x} (ZIP64, another name or none)")
        extra = extra[4 + length :]


def _check_kind(name: str, mode: int, size: int) -> None:
    """Entries are files and folders: no links, no devices, nothing that runs as another user."""
    folder = name.endswith("/")
    if stat.S_IFMT(mode) not in (0, stat.S_IFDIR if folder else stat.S_IFREG) or mode & _SPECIAL_BITS:
        raise ZipAmbiguous(f"its entry {_show(name)} is a link or of another special mode ({mode:#o})")
    if folder and size:
        raise ZipAmbiguous(f"its folder {_show(name)} has {size:,} bytes of content")


def _check_names(entries: list[_Entry]) -> None:
    """Names are relative, and differ on every file system."""
    folded: dict[str, str] = {}
    for entry in entries:
        name = entry.name.removesuffix("/")
        if any(unicodedata.category(letter)[0] == "C" for letter in name):
            raise ZipAmbiguous(f"it holds {_show(entry.name)}, a name with control characters")
        parts = name.split("/")
        if "\\" in name or ".." in parts or re.match(r"/|[A-Za-z]:", name) or entry.name == "/":
            raise ZipAmbiguous(f"it holds {_show(entry.name)}, which would be unpacked outside of its folder")
        if not all(parts) or "." in parts:
            raise ZipAmbiguous(f"it holds {_show(entry.name)}, a name that can be written in two ways")
        key = _fold(name)
        if key in folded:
            raise ZipAmbiguous(f"it holds {_show(folded[key])} and {_show(entry.name)}: one would replace the other")
        folded[key] = entry.name
    for name in folded.values():
        parts = name.removesuffix("/").split("/")
        for count in range(1, len(parts)):
            above = folded.get(_fold("/".join(parts[:count])))
            if above is not None and not above.endswith("/"):
                raise ZipAmbiguous(f"it holds {_show(above)}, which is a file, and {_show(name)} in it")


def _check_sizes(entries: list[_Entry], file_size: int) -> None:
    unpacked = sum(entry.size for entry in entries)
    limit = min(MAX_UNPACKED, max(_RATIO_MATTERS, _MAX_RATIO * file_size))
    if unpacked > limit:
        raise ZipAmbiguous(f"it unpacks to {unpacked:,} bytes; expected at most {limit:,}")


def _fold(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _show(name: str) -> str:
    return repr(name[:100])  # it comes from outside: neither long nor able to steer a terminal
