"""Bearer tokens: who may call what. A file of digests; the tokens themselves are nowhere.

::

    [[token]]
    name = "shop"                                       # what the audit log calls the caller
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b…"  # printf %s TOKEN | sha256sum
    scopes = ["read", "record"]                         # of read, record, publish, jobs, forget
    expires = 2027-01-31                                # UTC, the last day; absent: never

The file is read again when it changes, so tokens are rotated without a restart: add the new one,
move the clients, take the old one out. A file that has become wrong leaves those in force that were
read before. Tokens must be random and long (32 bytes of ``secrets.token_urlsafe``, say): a digest
without salt hides only what cannot be guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from visavis.domain import utc_now
from visavis.errors import InputError, SchemaError, VisavisError
from visavis.store import read_bytes

__all__ = ["SCOPES", "Token", "TokenFile"]

SCOPES: Final = ("read", "record", "publish", "jobs", "forget")

_KEYS: Final = ("name", "sha256", "scopes", "expires")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Token(NamedTuple):
    """A token that is known.

    Attributes
    ----------
    name : str
    digest : bytes
        sha256 of the token.
    scopes : frozenset of str
    expires : date or None
        The last day, UTC.
    """

    name: str
    digest: bytes
    scopes: frozenset[str]
    expires: date | None


class TokenFile:
    """The tokens of a file.

    Parameters
    ----------
    path : Path
    today : callable, optional
        The UTC day; for tests.

    Raises
    ------
    InputError
        If the file is not as above, or names no token.
    """

    def __init__(self, path: Path, today: Callable[[], date] | None = None) -> None:
        self._path = path
        self._today = today or (lambda: utc_now().date())
        self._seen = _stamp(path)
        self._tokens = _read(path)

    def find(self, given: str) -> Token | None:
        """The token of this text, unless it is unknown or has expired."""
        self._look()
        digest = hashlib.sha256(given.encode(errors="surrogateescape")).digest()
        found = None
        for token in self._tokens:
            # All are compared, each in constant time: how long it takes tells nothing.
            if hmac.compare_digest(token.digest, digest):
                found = token
        if found is None or (found.expires is not None and found.expires < self._today()):
            return None
        return found

    def _look(self) -> None:
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._tokens = _read(self._path)
        except VisavisError:
            # Half written, most likely: what was in force stays so.
            return


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> tuple[Token, ...]:
    content = read_bytes(path, field="tokens")
    try:
        values = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no TOML: {error}", field="tokens") from None
    for name in values:
        if name != "token":
            raise SchemaError("is no key of a token file", field=f"tokens.{name!s:.80}")
    rows = values.get("token")
    if not isinstance(rows, list) or not rows:
        raise SchemaError("must hold at least one [[token]]", field="tokens")
    return tuple(_token(row, number) for number, row in enumerate(rows))


def _token(given: Any, row: int) -> Token:
    if not isinstance(given, Mapping):
        raise SchemaError("must be a table", field="tokens.token", row=row)
    for name in given:
        if name not in _KEYS:
            raise SchemaError("is no key of a token", field=f"tokens.token.{name!s:.80}", row=row)
    name, digest, scopes = (given.get(key) for key in _KEYS[:3])
    if not isinstance(name, str) or not name:
        raise SchemaError("must be text, not empty", field="tokens.token.name", row=row)
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        reason = "must be 64 hexadecimal digits in lower case"
        raise InputError(reason, field="tokens.token.sha256", row=row)
    if not isinstance(scopes, list) or not scopes or any(each not in SCOPES for each in scopes):
        reason = f"must be a list of some of {', '.join(SCOPES)}"
        raise InputError(reason, field="tokens.token.scopes", row=row)
    expires = given.get("expires")
    if expires is not None and (not isinstance(expires, date) or isinstance(expires, datetime)):
        raise SchemaError("must be a day", field="tokens.token.expires", row=row)
    return Token(name, bytes.fromhex(digest), frozenset(scopes), expires)
