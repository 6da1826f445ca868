"""The tokens of a TorchServe that asks for them: `disable_token_authorization=false` in config.properties.

Such a server writes `key_file.json` into the folder in which it was started: a token each for inference and management,
which expire, and the API key, with which new ones are issued. Every user who can read that file may use the server.
"""

import os
import re
from pathlib import Path
from typing import Literal

import orjson
import requests

from cifar.client.sessions import open_session
from cifar.common.addresses import own_addresses
from cifar.common.project import ROOT
from cifar.common.urls import is_loopback

KEY_FILE = ROOT / "run" / "key_file.json"  # of a server that `cifar up` started

Kind = Literal["inference", "management"]

_TIMEOUT_S = 10.0
_MAX_BYTES = 1 << 16
_KEY = r"[A-Za-z0-9._~+/=-]{1,1000}"  # what RFC 6750 lets a token be made of


def find_tokens(kind: Kind, url: str, management_url: str | None = None, key_file: Path | None = None) -> "Tokens":
    """Return what the environment says to show the server at `url`.

    The variable CIFAR_INFERENCE_TOKEN or CIFAR_MANAGEMENT_TOKEN holds a token, CIFAR_KEY_FILE the path of a server's
    key_file.json. Without them a server on this machine is shown the token in `key_file`, by default run/key_file.json,
    where there is one.
    """
    given, named = os.environ.get(variable(kind)), os.environ.get("CIFAR_KEY_FILE")
    own = (key_file or KEY_FILE) if is_loopback(url) else None
    return Tokens(kind, Path(named) if named else own, management_url, given)


def variable(kind: Kind) -> str:
    """Return the name of the environment variable that may hold a token."""
    return f"CIFAR_{kind.upper()}_TOKEN"


class Tokens:
    """What to show a server.

    Args:
        kind: which of the server's APIs is called.
        key_file: the server's key_file.json; it need not exist, as most servers ask for no token.
        management_url: where a new token is asked for; None: of this checkout's server.
        given: a token, instead of the one in the file; it cannot be renewed.
    """

    def __init__(
        self,
        kind: Kind,
        key_file: Path | None,
        management_url: str | None = None,
        given: str | None = None,
    ) -> None:
        self.kind = kind
        self._key_file = key_file
        self._management_url = management_url
        self._given = given
        self._token = given or self._read(kind)

    @property
    def headers(self) -> dict[str, str]:
        """What to add to a request; nothing where no token is known."""
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def renew(self) -> bool:
        """Find another token than the one that was rejected; False where none is to be had."""
        if self._given:
            return False
        rejected, self._token = self._token, self._read(self.kind)
        if self._token is None:
            return False
        if self._token != rejected:  # the server was restarted, or another process has renewed it
            return True
        if not self._ask_for_another():
            return False
        self._token = self._read(self.kind)
        return self._token != rejected

    def _ask_for_another(self) -> bool:
        """Have the server write a new token into its file; it does not tell it in its answer."""
        try:
            session, base = open_session(self._management_url or own_addresses().management)
            with session:
                answer = session.get(
                    f"{base}/token",
                    params={"type": self.kind},
                    headers={"Authorization": f"Bearer {self._read('API')}"},
                    timeout=_TIMEOUT_S,
                )
        except requests.RequestException:
            return False
        return answer.status_code == 200

    def _read(self, kind: str) -> str | None:
        if self._key_file is None:
            return None
        try:
            with os.fdopen(os.open(self._key_file, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # may be a pipe
                key = orjson.loads(file.read(_MAX_BYTES))[kind]["key"]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        # It becomes part of a header.
        return key if isinstance(key, str) and re.fullmatch(_KEY, key) else None
