"""The options of a request, `top_k` and `max_value`, from JSON keys, query parameters and headers."""

from collections.abc import Mapping
from dataclasses import dataclass

from bad_input import BadInput, show

OPTION_NAMES = ("top_k", "max_value")
MAX_TOP_K = 10


@dataclass(frozen=True)
class RequestOptions:
    """What the sender asked for; None where nothing was said.

    Attributes:
        top_k: how many labels to report, 1 to 10.
        max_value: the number that means full brightness, 255 or 1.
    """

    top_k: int | None = None
    max_value: int | None = None


def read_options(json_keys: Mapping[str, object], query: Mapping[str, str]) -> RequestOptions:
    """Read the options from both places.

    Args:
        json_keys: a JSON body's keys; those that are no options are passed over.
        query: options that came beside the body, as text: see `join_query_and_headers`.

    Raises:
        BadInput: unknown query parameter, wrong value, or two values that differ.
    """
    unknown = [name for name in query if name not in OPTION_NAMES]
    if unknown:
        raise BadInput(
            "unknown_option",
            f"The query parameter {show(unknown[0])} is not known. Known are {' and '.join(OPTION_NAMES)}.",
        )
    from_json = {name: json_keys[name] for name in OPTION_NAMES if name in json_keys}
    # JSON distinguishes numbers from strings, a query does not: there "3" means 3.
    from_query = {name: _number_or_text(text) for name, text in query.items()}
    in_json = _checked(from_json)
    in_query = _checked(from_query)
    return RequestOptions(
        top_k=_agreed("top_k", in_json.top_k, in_query.top_k),
        max_value=_agreed("max_value", in_json.max_value, in_query.max_value),
    )


def join_query_and_headers(
    query: Mapping[str, str], headers: Mapping[str, str], place: str = "the query"
) -> dict[str, str]:
    """Join the two places beside the body in which an option may stand.

    TorchServe 0.12.0 drops the query of /predictions/… before the handler sees it (docs/adr/0004), so that an image or
    raw bytes can only carry an option as a header.

    Args:
        query: parameters, as text.
        headers: with names in lower case; `x-top-k` is top_k, `x-max-value` is max_value, others are passed over.
        place: what to call the first place in a message.

    Raises:
        BadInput: both have an option, with different values.
    """
    joined = dict(query)
    for name in OPTION_NAMES:
        header = f"x-{name.replace('_', '-')}"
        value = headers.get(header)
        if value is None:
            continue
        if joined.setdefault(name, value) != value:
            raise BadInput(
                "conflicting_option",
                f"{name} is {show(joined[name])} in {place} but {show(value)} in the header {header}. Say it once.",
            )
    return joined


def asks_for_nothing(value: object) -> bool:
    """Tell whether a key that is not known can be ignored: client libraries send keys that their user has not set."""
    return value is None or value is False or value in ("", [], {})


def _number_or_text(text: str) -> object:
    return int(text) if len(text) < 4 and text.isascii() and text.isdigit() else text


def _checked(values: Mapping[str, object]) -> RequestOptions:
    return RequestOptions(
        top_k=_check_top_k(values["top_k"]) if "top_k" in values else None,
        max_value=_check_max_value(values["max_value"]) if "max_value" in values else None,
    )


def _check_top_k(value: object) -> int:
    if type(value) is not int or not 1 <= value <= MAX_TOP_K:
        raise BadInput("wrong_top_k", f"top_k is {show(value)}, expected a whole number from 1 to {MAX_TOP_K}.")
    return value


def _check_max_value(value: object) -> int:
    if type(value) not in (int, float) or value not in (1, 255):  # the type, because True == 1
        raise BadInput(
            "wrong_max_value",
            f"max_value is {show(value)}, expected 255 (numbers in 0–255) or 1 (numbers in 0–1).",
        )
    return 1 if value == 1 else 255


def _agreed(name: str, in_json: int | None, in_query: int | None) -> int | None:
    if in_json is not None and in_query is not None and in_json != in_query:
        raise BadInput(
            "conflicting_option",
            f"{name} is {in_json} in the body but {in_query} beside it (in the query or a header). Say it once.",
        )
    return in_json if in_json is not None else in_query
