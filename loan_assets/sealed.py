"""A sealed folder: plain files and one manifest of their SHA-256 digests, so that any change is seen before use.

Here: how a folder is sealed, named by its content, pointed at and verified. Not here: where folders rest
(`resources`) or what is in them. Standard library only: the serving box verifies with the same lines that sealed.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Collection
from pathlib import Path

from loan_assets.refusal import Refusal

MANIFEST, CURRENT = "manifest.json", "CURRENT"


def seal(folder: Path) -> str:
    """Write the manifest of every file below `folder`, force all of it to disk, and return the folder's digest.

    The digest (64 hex characters) depends on names and bytes only: the same files give the same digest anywhere.
    """
    files = {path.relative_to(folder).as_posix(): _sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    files.pop(MANIFEST, None)
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"files": files}, indent=1, sort_keys=True) + "\n")
    for path in [folder / name for name in files] + [manifest]:
        sync(path)
    for directory in [path for path in folder.rglob("*") if path.is_dir()] + [folder]:
        sync(directory)
    return _digest(files)


def verify(
    folder: Path, *, expected: str | None = None, left_behind: Collection[str] = (), byproducts: Collection[str] = ()
) -> str:
    """Return the digest of a sealed folder after checking its files against its manifest.

    Args:
        folder: a folder that `seal` wrote, here or elsewhere.
        expected: the digest it must have; None accepts whatever the manifest says.
        byproducts: names of files or folders that do not count, such as the byte code that running the files leaves.
        left_behind: names that a partial copy may lack; if present they are checked like the others.

    Raises:
        Refusal: naming the first file that is missing, altered or not listed.
    """
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        digest = _digest(files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as unreadable:
        raise Refusal(f"{folder / MANIFEST} is missing or unreadable.", RESTORE) from unreadable
    if expected is not None and digest != expected:
        raise Refusal(f"{folder} has digest {digest[:12]} where {expected[:12]} was expected.", RESTORE)
    for name in sorted(files):
        path = folder / name
        if not path.is_file():
            if name in left_behind:
                continue
            raise Refusal(f"{path} is missing.", RESTORE)
        if _sha256(path) != files[name]:
            raise Refusal(f"{path} is corrupt: its bytes do not match the digest it was sealed with.", RESTORE)
    there = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    unlisted = {path.as_posix() for path in there if not set(path.parts) & set(byproducts)} - {*files, MANIFEST}
    if unlisted:
        raise Refusal(f"{folder} holds {min(unlisted)}, which its manifest does not list.", RESTORE)
    return digest


def files_of(folder: Path) -> tuple[str, ...]:
    """The names that a sealed folder's manifest lists."""
    return tuple(sorted(json.loads((folder / MANIFEST).read_text())["files"]))


def contents(folder: Path, expected: str) -> dict[str, bytes]:
    """Every file of a sealed folder by its name, each read once and checked: what is used is what was verified.

    Raises:
        Refusal: naming the first file that is missing, altered or not listed.
    """
    verify(folder, expected=expected)
    files = json.loads((folder / MANIFEST).read_text())["files"]
    read = {}
    for name, digest in files.items():
        read[name] = (folder / name).read_bytes()
        if hashlib.sha256(read[name]).hexdigest() != digest:
            raise Refusal(f"{folder / name} is corrupt: its bytes do not match the digest it was sealed with.", RESTORE)
    return read


def pointed_at(place: Path) -> str | None:
    """The digest that a shelf's CURRENT names; None when nothing was ever put in force there."""
    try:
        return (place / CURRENT).read_text().strip()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as unreadable:
        raise Refusal(f"{place / CURRENT} is unreadable.", RESTORE) from unreadable


def point(place: Path, digest: str) -> None:
    """Put a digest in force on a shelf by replacing CURRENT in one step, whoever else does so at the same time."""
    pointer = place / f".{CURRENT}-{uuid.uuid4().hex}"
    pointer.write_text(digest + "\n")
    sync(pointer)
    pointer.replace(place / CURRENT)
    sync(place)


def in_force(place: Path) -> tuple[str, Path]:
    """The digest and the folder of the version in force on a shelf, verified file by file.

    Raises:
        Refusal: when there is none, or a file of it was altered, cut short or removed.
    """
    digest = pointed_at(place)
    if digest is None:
        raise Refusal(f"Nothing is in force at {place}.", "Run `loan-assets run` to make it.")
    folder = place / digest[:16]
    verify(folder, expected=digest)
    return digest, folder


def sync(path: Path) -> None:
    """Force a file or a directory entry to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


RESTORE = "Materialize the asset that wrote it again, or restore the folder from a backup; nothing was loaded from it."


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(files: dict[str, str]) -> str:
    listing = "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(listing.encode()).hexdigest()
