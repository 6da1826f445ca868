"""MLflow's store: how this project reaches it, and what it says when it cannot.

The store is MLflow's own default, so that a plain `mlflow ui` shows it: sqlite in `mlflow.db`, files in `mlruns/`, no
server. MLFLOW_TRACKING_URI names another: a database, or a tracking server.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cifar.common.errors import TrackingError

# MLflow repeats a request 7 times, with pauses that add up to 4 minutes, and waits 120 s for each answer. That is right
# in the middle of a run, where a server may restart, and wrong for its first request, where the address may be wrong.
_FIRST_CONTACT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


def import_mlflow() -> Any:
    """Import MLflow, quiet. It takes seconds, which commands that do not track should not pay; hence not at the top.

    Raises:
        TrackingError: it is not installed; serving does not need it.
    """
    # MLflow reports its use over the network unless told otherwise; a reference deployment does not call home.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one bar for each file, of a few MB
    try:
        import mlflow
    except ModuleNotFoundError as error:
        raise TrackingError(f"MLflow is not installed ({error}); install it: pip install -e '.[training]'") from None
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # the store's creation is told step by step otherwise
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # tracebacks of what `store_errors` reports
    return mlflow


def store_address() -> str:
    """Return the URI of the store, without a user's name and password."""
    return without_credentials(import_mlflow().get_tracking_uri())


def without_credentials(text: str) -> str:
    """Remove `user:password@` from the URIs in a text; MLflow's messages repeat them."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


@contextmanager
def store_errors(rejection: str, hint: str = "") -> Iterator[None]:
    """Turn whatever the store raises inside the block into a TrackingError.

    Args:
        rejection: what cannot be done, as the message's beginning: `no run can be started`.
        hint: how to fix it, on top of the advice to name another store.
    """
    mlflow = import_mlflow()
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    # A file that is no database, a missing database driver and a folder that cannot be made come through as they are.
    except (mlflow.MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        raise TrackingError(
            f"{rejection} in MLflow's store {store_address()}: {without_credentials(_reason(error)).rstrip('.')}. "
            f"MLFLOW_TRACKING_URI names another store{hint}"
        ) from error


@contextmanager
def first_contact() -> Iterator[None]:
    """Give up on a server that does not answer after seconds, not minutes; what the user has set stays."""
    ours = {name: value for name, value in _FIRST_CONTACT.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _reason(error: BaseException) -> str:
    """Return what is wrong, without the request or the SQL that MLflow's messages quote."""
    from requests import ConnectionError as NoConnection
    from requests import Timeout
    from sqlalchemy.exc import DBAPIError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NoConnection | Timeout):
            rejected = cause.args[0] if cause.args else cause  # urllib3's error, which has the reason where it retried
            return f"the server does not answer ({getattr(rejected, 'reason', rejected)})"
        if isinstance(cause, DBAPIError):
            return str(cause.orig)
        cause = cause.__cause__ or cause.__context__
    return str(error).strip()
