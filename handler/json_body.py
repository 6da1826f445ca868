"""JSON that the server has not parsed: recognised by its beginning, bounded before it is parsed."""

import json
import re

from bad_input import BadInput, show

# Also behind a byte order mark, also in UTF-16 and UTF-32, which Windows PowerShell writes.
_START = re.compile(rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff|\0\0\xfe\xff)?[ \t\r\n\0]*[\[{]")
# 256 nested images are 270,594 lists and 786,432 numbers. Parsing more takes up to a second.
_MAX_LISTS = 300_000
_MAX_VALUES = 1_000_000
_MAX_KEYS = 10_000


def begins_like_json(body: bytes | bytearray) -> bool:
    """Tell whether the first sign is a brace or a bracket; a raw image may begin so too."""
    return _START.match(body) is not None


def parse_json(body: bytes | bytearray) -> object:
    """Parse one document, in UTF-8, UTF-16 or UTF-32.

    Raises:
        BadInput: not JSON, or of more lists, values or keys than a request of 256 images has.
    """
    _check_size(body)
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        where = f"at line {error.lineno}, column {error.colno} (character {error.pos:,} of {len(error.doc):,})"
        reason = f"{error.msg} {where}"
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 at byte {error.start:,}"
    except RecursionError:
        reason = "nested too deep"
    except ValueError as error:  # a whole number of more digits than Python reads
        reason = str(error)
    raise BadInput(
        "malformed_json",
        f"The body is not JSON: {reason}. It begins with {show(bytes(body[:20]))}. "
        "Send it whole; for raw bytes the header is Content-Type: application/octet-stream.",
    )


def _check_size(body: bytes | bytearray) -> None:
    """Count what parsing costs, by the signs between values; those in strings count too."""
    for what, found, most in (
        ("lists and objects", body.count(b"[") + body.count(b"{"), _MAX_LISTS),
        ("values", body.count(b","), _MAX_VALUES),
        ("keys", body.count(b":"), _MAX_KEYS),
    ):
        if found > most:
            raise BadInput(
                "too_much_work",
                f"The JSON has {found:,} {what}, at most {most:,} are parsed; 256 images have fewer. Send 256 images "
                "or fewer, and nothing else in the body.",
            )
