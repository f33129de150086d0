"""Who may ask: bearer tokens with scopes, and no open port without them.

Here: the file of tokens, and whether a request or a socket is allowed. Not here: what routes need which scope
(`application`).

A line of the file names a caller, its scopes and the SHA-256 of its token: `core-banking predict 9f86d0…`. Nobody who
reads the file can use it. Without a file everybody on this machine may ask, and nobody else can.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from loan_assets.refusal import Refusal

PREDICT, PUSH, ADMIN = "predict", "push", "admin"
SCOPES = frozenset({PREDICT, PUSH, ADMIN})
MEND = "Mend the file that LOAN_TOKENS names; `loan-assets token` makes its lines."
LINE = re.compile(r"(?P<caller>[\w.-]+)\s+(?P<scopes>[a-z,]+)\s+(?P<digest>[0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A caller, what it may do, and the digest of what it shows."""

    caller: str
    scopes: frozenset[str]
    digest: bytes

    def line(self) -> str:
        """The token's line in the file."""
        return f"{self.caller} {','.join(sorted(self.scopes))} {self.digest.decode()}"


class Access:
    """The tokens of a file, read again when it changes.

    A file that is gone, unreadable or without a token lets nobody in; one with a line of another form is not taken
    over, and the tokens known before stay valid.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._mark: tuple[int, ...] | None = None
        self._tokens: tuple[Token, ...] = ()
        self.look()

    @classmethod
    def closed(cls, file: Path | None) -> Access:
        """Access to a file that made no sense: nobody is let in until it is mended."""
        access = cls(None)
        access._file, access._mark = file, None
        return access

    @property
    def is_open(self) -> bool:
        """Whether no tokens are asked for."""
        return self._file is None

    def look(self) -> None:
        """Read the file again if it has changed.

        Raises:
            Refusal: once for each change, when what is found now lets nobody in or was not taken over.
        """
        if self._file is None:
            return
        try:
            status = self._file.stat()
            mark: tuple[int, ...] = (status.st_ino, status.st_mtime_ns, status.st_size)
        except OSError:
            mark = ()
        if mark == self._mark:
            return
        self._mark = mark
        try:
            text = self._file.read_text()
        except (OSError, UnicodeDecodeError) as unreadable:
            self._tokens = ()
            raise Refusal(f"The tokens in {self._file} cannot be read: nobody is let in.", MEND) from unreadable
        self._tokens = read_tokens(text)
        if not self._tokens:
            raise Refusal(f"{self._file} holds no token: nobody is let in.", MEND)

    def caller(self, authorization: bytes | None) -> Token | None:
        """Whose token a request shows; None when it is nobody's that is known.

        Every token is compared, each in constant time: how long it takes tells nothing.
        """
        kind, _, shown = (authorization or b"").partition(b" ")
        digest = hashlib.sha256(shown.strip()).hexdigest().encode()
        found: Token | None = None
        for token in self._tokens:
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found if kind.lower() == b"bearer" else None


def read_tokens(text: str) -> tuple[Token, ...]:
    """The tokens of a file; blank lines and lines that begin with # do not count.

    Raises:
        Refusal: for the first line of another form, by its number.
    """
    tokens = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = LINE.fullmatch(line.strip())
        scopes = frozenset(found["scopes"].split(",")) if found else frozenset()
        if found is None or not scopes <= SCOPES:
            raise Refusal(
                f"Line {number} of the tokens is not `caller scopes sha256`.", "Make lines with `loan-assets token`."
            )
        tokens.append(Token(caller=found["caller"], scopes=scopes, digest=found["digest"].encode()))
    return tuple(tokens)


def new_token(caller: str, scopes: frozenset[str]) -> tuple[str, Token]:
    """A new secret, to be shown once, and the token that recognises it.

    Raises:
        Refusal: when the caller's name or a scope is none.
    """
    if not scopes or not scopes <= SCOPES:
        raise Refusal("These are not scopes.", f"Choose from: {', '.join(sorted(SCOPES))}.")
    if not re.fullmatch(r"[\w.-]+", caller):
        raise Refusal("That is not a caller's name.", "Use letters, digits and . _ -")
    secret = secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest().encode()
    return secret, Token(caller=caller, scopes=scopes, digest=digest)


def is_loopback(host: str) -> bool:
    """Whether an address or a name can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_port(host: str) -> Refusal:
    """Why an address is not served without tokens."""
    return Refusal(
        f"The endpoint would answer everybody at {host}.",
        "Name a file of tokens in LOAN_TOKENS (`loan-assets token` makes one), or bind to 127.0.0.1.",
    )


def open_to_others() -> str | None:
    """An address beyond this machine on which this process listens; None when there is none."""
    import psutil

    for connection in psutil.Process().net_connections(kind="inet"):
        if connection.status != psutil.CONN_LISTEN:
            continue
        if not is_loopback(connection.laddr.ip):
            return str(connection.laddr.ip)
    return None


def refuse_open_port(*, has_tokens: bool) -> None:
    """Refuse to serve others without tokens.

    Raises:
        Refusal: when this process listens beyond this machine and asks for no tokens.
    """
    address = None if has_tokens else open_to_others()
    if address is not None:
        raise open_port(address)
