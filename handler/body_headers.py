"""What the headers say of a body, its coding, its charset, its completeness: undone, or rejected by the header's name.

Headers that describe a body without changing what it means (Content-Language, Content-Disposition, digests) are passed
over.
"""

import re
import zlib
from collections.abc import Mapping

from bad_input import BadInput, show

# max_request_size in config.properties, in bytes: a compressed body may hold no more than a plain one.
MAX_BODY_BYTES = 6_553_500

# Headers that change what a body means. Hardly any request has one, and one look says so.
_MEANINGFUL = frozenset({"content-encoding", "transfer-encoding", "content-transfer-encoding", "content-range"})
# Of these, two that differ in the case of their names only are no list but a contradiction.
_SINGLE = _MEANINGFUL | {"content-type", "content-length", "inference-header-content-length"}

_MAX_CODINGS = 2
# gzip joins files by appending; bgzip makes one of each 64 KiB.
_MAX_MEMBERS = 256
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # of zlib
_NO_CODING = {"", "identity"}
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s\";]*)", re.IGNORECASE)
# JSON's own: Python recognises UTF-16 and UTF-32 by their zero bytes (RFC 4627).
_JSON_CHARSET = re.compile(r"utf-?8|us-ascii|ascii|utf-?(16|32)([lb]e)?", re.IGNORECASE)


def lower_names(headers: Mapping[str, object], parts: int) -> dict[str, str]:
    """Bring header names to lower case: TorchServe keeps the case in which the client wrote them.

    Args:
        headers: the request's. Under the name of each body part or query parameter stands a mapping, which is left out,
            even if that name is "content-type".
        parts: how many of those there are.

    Raises:
        BadInput: two headers that differ in case only contradict each other on what the body is.
    """
    lowered = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    if len(lowered) + parts < len(headers):
        _check_single(headers)
    return lowered


def read_body(body: object, headers: Mapping[str, str]) -> object:
    """Undo what the headers say was done to the body.

    Args:
        body: bytes; or what the server has made of JSON or text, which then was not compressed.
        headers: the request's, with names in lower case.

    Returns:
        `body` itself where no header says anything of it, else bytes of at most MAX_BODY_BYTES.

    Raises:
        BadInput: a coding or charset that is not taken, more than two codings, damaged or too large when decompressed,
            a part of a body.
    """
    content_type = headers.get("content-type", "")
    if ";" in content_type:
        _check_charset(content_type)
    if _MEANINGFUL.isdisjoint(headers):
        return body
    if "content-range" in headers:
        raise BadInput(
            "partial_body",
            f"The header Content-Range is {show(headers['content-range'])}: a part of a body cannot be answered. Send "
            "the whole in one request, without the header.",
        )
    _check_uncoded(headers, "transfer-encoding", {*_NO_CODING, "chunked"})
    _check_uncoded(headers, "content-transfer-encoding", {*_NO_CODING, "binary", "8bit", "7bit"})
    for coding in reversed(_codings(headers.get("content-encoding", ""))):
        if not isinstance(body, (bytes, bytearray)):
            raise _damaged(coding, "it came uncompressed")
        body = _decompress(body, coding)
    return body


def check_form_headers(headers: Mapping[str, str]) -> None:
    """Reject a form with a coding: the server has taken it apart already, without decoding anything."""
    if not _MEANINGFUL.isdisjoint(headers):
        read_body(None, {name: headers[name] for name in _MEANINGFUL & headers.keys()})


def _check_single(headers: Mapping[str, object]) -> None:
    seen: dict[str, str] = {}
    for name, value in headers.items():
        lowered = name.lower()
        if lowered in _SINGLE and isinstance(value, str) and seen.setdefault(lowered, value) != value:
            raise BadInput(
                "conflicting_headers",
                f"The header {name.title()} came twice, as {show(seen[lowered])} and {show(value)}. Send it once.",
            )


def _codings(header: str) -> list[str]:
    codings = [coding for coding in (part.strip().lower() for part in header.split(",")) if coding not in _NO_CODING]
    unknown = [coding for coding in codings if coding not in _WINDOW_BITS]
    if unknown or len(codings) > _MAX_CODINGS:
        raise BadInput(
            "unsupported_encoding",
            f"The header Content-Encoding is {show(header)}, expected gzip or deflate, at most {_MAX_CODINGS} of them, "
            "or none.",
        )
    return codings


def _check_uncoded(headers: Mapping[str, str], name: str, taken: set[str]) -> None:
    value = headers.get(name, "")
    if any(part.strip().lower() not in taken for part in value.split(",")):
        raise BadInput(
            "unsupported_encoding",
            f"The header {name.title()} is {show(value)}, which is not decoded. Send the body as it is, or compressed "
            "with Content-Encoding: gzip.",
        )


def _check_charset(content_type: str) -> None:
    found = _CHARSET.search(content_type)
    is_json = content_type.lstrip()[:16].lower() == "application/json"
    if found and is_json and not _JSON_CHARSET.fullmatch(found[1]):
        raise BadInput(
            "unsupported_charset",
            f"The header Content-Type names the charset {show(found[1])}, expected UTF-8, the charset of JSON; leave "
            "the parameter out.",
        )


def _decompress(body: bytes | bytearray, coding: str) -> bytes:
    try:
        return _inflate(bytes(body), _WINDOW_BITS[coding])
    except zlib.error as error:
        if coding == "deflate":  # by the standard with zlib's header, but some clients leave it out
            try:
                return _inflate(bytes(body), -15)
            except zlib.error:
                pass
        raise _damaged(coding, str(error)) from None


def _inflate(data: bytes, window_bits: int) -> bytes:
    parts: list[bytes] = []
    room = MAX_BODY_BYTES
    for _ in range(_MAX_MEMBERS):
        stream = zlib.decompressobj(window_bits)
        part = stream.decompress(data, room + 1)
        room -= len(part)
        if room < 0:
            break
        if not stream.eof:
            raise zlib.error("it ends before its end mark")
        parts.append(part)
        data = stream.unused_data
        if not data:
            return b"".join(parts)
        if window_bits < 16:  # only gzip files may follow each other
            raise zlib.error("something follows its end mark")
    raise BadInput(
        "body_too_large",
        f"Decompressed, the body has more than {MAX_BODY_BYTES:,} bytes, or more than {_MAX_MEMBERS} gzip members. "
        "Send fewer images in one request.",
    )


def _damaged(coding: str, reason: str) -> BadInput:
    return BadInput(
        "malformed_encoding",
        f"The header Content-Encoding says {coding}, but the body cannot be decompressed: {show(reason)}. Compress the "
        "whole body once, or leave the header out.",
    )
