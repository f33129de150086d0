"""A place in an object store: S3, Google or Azure, by URL, with the few operations that everything else is built on.

Here: reading, creating, replacing, listing and deleting objects, each whole or not at all, and saying what is wrong in
words. Not here: what the objects are (`mirror`, `resources.decisions`, `resources.prediction_logs`).

What a folder promises by renaming, an object store promises by conditional writes: an object is created only where none
is, and replaced only where it is still the one that was read. Credentials, region, endpoint and encryption at rest are
the vendor's own variables (`AWS_ENDPOINT_URL`, `AWS_SERVER_SIDE_ENCRYPTION`, ...), or the machine's role. Plain HTTP
is refused unless `AWS_ALLOW_HTTP` says otherwise.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loan_assets.refusal import Away, BadInput, Gone, Overtaken, Refusal

if TYPE_CHECKING:
    from obstore.store import ObjectStore

PROTOCOLS = ("s3", "gs", "az", "abfs")
SCHEMES = tuple(f"{protocol}://" for protocol in PROTOCOLS)
# A store that is away is told within this, so that whoever waits can say so.
PATIENCE = timedelta(seconds=10)
RETRIES = {"max_retries": 3, "retry_timeout": PATIENCE}
PLAIN_HTTP = "AWS_ALLOW_HTTP"
DENIED = re.compile(r"\b403 Forbidden\b|\bAccess Denied\b|\bAccessDenied\b")


def is_bucket(place: str) -> bool:
    """Whether a place is in an object store and not a folder."""
    return place.startswith(SCHEMES)


def folder_or_bucket(place: str, called: str, others: tuple[str, ...] = ()) -> str:
    """The place, where it is a folder, in an object store, or begins as others may; nothing stays nothing.

    Args:
        called: the variable or option that named it.

    Raises:
        BadInput: when it is a URL of another kind, by which a folder in the working directory would be made.
    """
    if is_bucket(place) or place.startswith(others) or not re.match(r"[A-Za-z][\w+.-]*:/", place):
        return place
    known = ", ".join((*SCHEMES, *others))
    raise BadInput(
        f"{called} begins with {place.partition('/')[0]}, which is no place of ours.",
        f"Name a folder, or a place in {known}.",
    )


def bucket_at(place: str) -> str:
    """The place where it is in an object store, nothing where it is a folder."""
    return place if is_bucket(place) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An object's bytes, and by what it is told from the one that replaces it, in the words of its store."""

    data: bytes
    mark: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An object as it is listed; `name` is below the place, `size` in bytes."""

    name: str
    size: int
    modified: datetime


def files_at(place: str) -> tuple[Any, str]:
    """The fsspec file system of a place and the path in it; buckets are reached by the client that everything uses."""
    import fsspec

    if is_bucket(place):
        from obstore.fsspec import register

        register(PROTOCOLS)
    found: tuple[Any, str] = fsspec.core.url_to_fs(place)
    return found


@dataclass(frozen=True)
class Bucket:
    """The objects below `url`, such as `s3://bank/loan-assets/store`."""

    url: str

    def read(self, name: str) -> Held | None:
        """An object; None where there is none.

        Raises:
            Refusal: when the store cannot be reached or does not let us in; so does everything below.
        """
        import obstore

        with self._told(name):
            try:
                found = obstore.get(self._quick, name)
            except FileNotFoundError as missing:
                if _has_no_bucket(missing):
                    raise
                return None
            said = {"e_tag": found.meta["e_tag"], "version": found.meta["version"]}
            return Held(data=bytes(found.bytes()), mark={key: value for key, value in said.items() if value})

    def write(self, name: str, data: bytes) -> None:
        """Write an object, whatever was there: for names that say what is in it."""
        self._put(name, data, "overwrite")

    def create(self, name: str, data: bytes) -> None:
        """Write an object where none is.

        Raises:
            Overtaken: when there is one already.
        """
        self._put(name, data, "create")

    def replace(self, name: str, data: bytes, seen: Held | None) -> None:
        """Write an object in place of the one that was seen; of none, where none was.

        Raises:
            Overtaken: when another one has taken its place meanwhile.
        """
        self._put(name, data, "create" if seen is None else dict(seen.mark))

    def upload(self, name: str, file: Path) -> None:
        """Write an object from a file of any size."""
        import obstore

        with self._told(name):
            obstore.put(self._patient, name, file)

    def download(self, name: str, file: Path) -> None:
        """Write an object of any size into a file, forced to disk by whoever seals it."""
        import obstore

        with self._told(name), file.open("wb") as target:
            for part in obstore.get(self._patient, name).stream():
                target.write(part)

    def names(self, prefix: str = "", after: str = "") -> Iterator[Listed]:
        """The objects below a prefix, in the order of their names, those up to `after` left out."""
        import obstore

        with self._told(prefix):
            for page in obstore.list(self._quick, prefix or None, offset=after or None):
                for entry in page:
                    yield Listed(name=entry["path"], size=entry["size"], modified=entry["last_modified"])

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """The names one level below a prefix that have more below them."""
        import obstore

        with self._told(prefix):
            found = obstore.list_with_delimiter(self._quick, prefix or None)["common_prefixes"]
            return tuple(sorted(path.rsplit("/", 1)[-1] for path in found))

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects; those that are gone already count as deleted."""
        import obstore

        with self._told(""):
            if names:
                obstore.delete(self._quick, list(names))

    def _put(self, name: str, data: bytes, mode: Any) -> None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._told(name):
            try:
                obstore.put(self._quick, name, data, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError) as faster:
                raise Overtaken(
                    f"{self.url}/{name} was written by another process meanwhile.",
                    "Run again; it will start from what is there now.",
                ) from faster

    def _no_bucket(self) -> Refusal:
        step = "Make the bucket, or correct the variable that names it."
        return Refusal(f"{self.url} is in no bucket that is there.", step)

    @cached_property
    def _quick(self) -> ObjectStore:
        """For what is small: nobody waits long to hear that the store is away."""
        return self._opened("8s")

    @cached_property
    def _patient(self) -> ObjectStore:
        """For files of any size."""
        return self._opened("600s")

    def _opened(self, timeout: str) -> ObjectStore:
        from obstore.store import from_url

        plain = os.environ.get(PLAIN_HTTP, "").lower() in ("1", "true")
        options = {"connect_timeout": "4s", "timeout": timeout, "allow_http": plain}
        return from_url(self.url, client_options=options, retry_config=RETRIES)  # type: ignore[call-overload,no-any-return]

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Turn the vendor's errors into sentences with a place and a way out."""
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        try:
            yield
        except Refusal:
            raise
        except FileNotFoundError as missing:
            if missing.filename is not None:
                raise  # a folder of this machine, which its own reader tells of
            if _has_no_bucket(missing):
                raise self._no_bucket() from missing
            step = "Run again; another version may have taken its place. Else restore it from a backup."
            raise Gone(f"{self.url}/{name} is not there any more.", step) from missing
        except (PermissionDeniedError, UnauthenticatedError) as denied:
            raise self._denied(name) from denied
        except BaseError as failed:
            if _has_no_bucket(failed):
                raise self._no_bucket() from failed
            said = _first_line(failed)
            if DENIED.search(str(failed)):  # of a listing, or of several objects at once
                raise self._denied(name) from failed
            if said.endswith("builder error"):
                said = f"its endpoint is plain HTTP, which {PLAIN_HTTP} does not allow"
            raise Away(
                f"{self.url} cannot be reached: {said}.",
                "Check that the store is up, and AWS_ENDPOINT_URL and the network policy; then run again.",
            ) from failed

    def _denied(self, name: str) -> Refusal:
        return Refusal(
            f"{self.url} may not be used with these credentials ({name or 'a request'} was denied).",
            "Give this key, or the role of this machine, the right to do it; deploy/iam has a policy for each part.",
        )


def _has_no_bucket(missing: Exception) -> bool:
    return "NoSuchBucket" in str(missing) or "ContainerNotFound" in str(missing)


def _first_line(failed: Exception) -> str:
    """What a vendor's error says before it begins to show its own insides."""
    return str(failed).strip().splitlines()[0].removeprefix("Generic S3 error: ").strip()[:200] or type(failed).__name__
