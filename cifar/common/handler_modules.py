"""Modules of the handler that training and the client use, so that pixels and statistics are those of the server.

They import each other by their bare names, as in the unpacked archive: names as common as `pixels`. The handler's
folder therefore stands first while they are imported, before whatever PYTHONPATH has, and is gone afterwards.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cifar.common.project import HANDLER


@contextmanager
def _handler_first() -> Iterator[None]:
    sys.path.insert(0, str(HANDLER))
    try:
        yield
    finally:
        sys.path.remove(str(HANDLER))


with _handler_first():
    from bad_input import BadInput
    from histogram import BOUNDS, bucket_label
    from input_statistics import STATISTICS, describe_picture
    from pictures import costs_too_much, decode_picture, is_picture, to_model_input

__all__ = [
    "BOUNDS",
    "STATISTICS",
    "BadInput",
    "bucket_label",
    "costs_too_much",
    "decode_picture",
    "describe_picture",
    "is_picture",
    "to_model_input",
]
