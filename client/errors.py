"""Everything that the client raises on purpose.

    CifarError
    ├── ConfigUnusable         config.properties is missing, or an address in it cannot be used
    ├── InputUnreadable        a local file or sample cannot be sent
    ├── ServerUnreachable      nobody answers: refused, timed out, closed in mid-answer
    ├── RequestRefused         4xx: this request is at fault, the next may be fine
    │   ├── ModelNotFound      404: the model, or the version asked for, is not served
    │   ├── VersionExists      409: this version is registered already
    │   ├── VersionIsDefault   403: the default version cannot go while there are others
    │   └── TokenRefused       400: the server asks for a token, and this is not it
    ├── ServerError            5xx: the server is at fault
    └── UnexpectedAnswer       an answer came, but not one of this service

The text of each is a sentence for the person at the terminal: what happened, and what to do next.
"""


class CifarError(Exception):
    """The root: catch this one to catch them all."""


class ConfigUnusable(CifarError):
    """The configuration cannot be read, or an address in it cannot be used."""


class InputUnreadable(CifarError):
    """A file is missing, is no picture, or is an array of the wrong shape or type."""


class ServerUnreachable(CifarError):
    """No answer came from `url`; `reason` says how that showed."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"No prediction server answers at {url}: {reason}. Start one with `make up`, or give the URL of another."
        )
        self.url = url
        self.reason = reason


class RequestRefused(CifarError):
    """The server refused this request.

    Attributes:
        status: HTTP status, 400 to 499.
        code: the contract's short name (`wrong_length`), or the type that TorchServe gives its own errors.
        message: the server's words: what came, what was expected, how to mend it.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{message} ({status} {code})")
        self.status = status
        self.code = code
        self.message = message


class ModelNotFound(RequestRefused):
    """The server runs, but does not serve this model, or not this version of it."""


class VersionExists(RequestRefused):
    """A version of this number is registered; versions are never replaced in place."""


class VersionIsDefault(RequestRefused):
    """The version is the default one: another must become it first."""


class TokenRefused(RequestRefused):
    """The server asks for a token, and was shown none, a wrong one or an expired one."""

    def __init__(self, url: str, variable: str) -> None:
        super().__init__(
            400,
            "InvalidKeyException",
            f"{url} asks for a token. Set {variable}, or CIFAR_KEY_FILE to the key_file.json of that server (in run/ "
            "after `cifar up`, else in the folder where it was started), with which expired tokens are renewed",
        )


class ServerError(CifarError):
    """The server failed; `excerpt` is the beginning of what it said."""

    def __init__(self, status: int, excerpt: str) -> None:
        super().__init__(
            f"The server failed with status {status}: {excerpt or 'no explanation'}. "
            "It may still be loading the model; if this stays, read the server's log (logs/)."
        )
        self.status = status
        self.excerpt = excerpt


class UnexpectedAnswer(CifarError):
    """What came back is not what this service answers; `excerpt` is its beginning."""

    def __init__(self, url: str, what: str, excerpt: str) -> None:
        super().__init__(
            f"{url} gave an answer that {what}: {excerpt or 'an empty body'}. "
            "Check the URL: another program may listen there, or a proxy stands in between."
        )
        self.url = url
        self.excerpt = excerpt
