"""Keeps out of the log what TorchServe's worker writes about each request.

It logs that a batch has come, and a traceback for every body that says it is JSON and is not, which a client can have
as often as it likes. The handler counts the first and answers the second. Both go through Python's root logger; what
modules of the handler log goes through loggers of their own.
"""

import logging

_ABOUT_REQUESTS = ("Backend received inference", "Failed json decoding")


def drop_lines_about_requests() -> None:
    """Have the root logger drop them, from now on; once or many times."""
    logging.getLogger().addFilter(_concerns_the_worker)


def _concerns_the_worker(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_ABOUT_REQUESTS)
