"""The door to BentoML: building a Bento from the serving box and one release, and finding it again.

Here: what goes into a Bento. Not here: what the box does with it (`bento/`) or the release's files (`release`).
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dagster as dg

from loan_assets.books import LoanBook
from loan_assets.bucket import Bucket, bucket_at
from loan_assets.refusal import Refusal
from loan_assets.release import REFERENCE
from loan_assets.sealed import seal, verify
from loan_assets.settings import Settings

NAME, SERVICE = "loan_default", "bento.service:LoanDefault"
ARCHIVE = "bento"
# What BentoML adds to the files it packs, and what running them leaves.
BYPRODUCTS = ("bentofile.yaml", "__pycache__")
# The only rooms of the platform that the box carries; the rest stays behind.
CARRIED = (
    "__init__.py",
    "py.typed",
    "refusal.py",
    "sealed.py",
    "policy.py",
    "release.py",
    "standing.py",
    "online_table.py",
    "online_redis.py",
    "bucket.py",
    "mirror.py",
    "shipped_log.py",
    "prediction_record.py",
    "books",
    "credit/__init__.py",
    "credit/arms.py",
    "credit/scoring.py",
    "credit/lookup.py",
    "credit/reasons.py",
)
# What the box runs on; with all that these need they are locked by hash in the file that the image is made from.
PACKAGES = (
    "bentoml",
    "numpy",
    "msgspec",
    "prometheus-client",
    "psutil",
    "uvicorn",
    "uvloop",
    "httptools",
    "redis",
    "hiredis",
    "obstore",
)
LOCK, IMAGE = "bento/requirements.lock", "bento/Dockerfile.j2"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltBento:
    """A Bento in the store."""

    tag: str
    bytes: int
    release_digest: str
    contents: str


class BentoStore(dg.ConfigurableResource):  # type: ignore[type-arg]
    """BentoML's store below `home`, and the bucket in which every Bento is kept for other machines where there is one.

    An archive in the bucket is named by what is in it. It is taken for that once it was unpacked and every file is
    what was packed.
    """

    home: str
    bucket: str = ""

    @classmethod
    def over(cls, settings: Settings) -> BentoStore:
        """The store that the settings name."""
        return cls(home=str(settings.bentoml_home), bucket=bucket_at(settings.bentos_place))

    def build(self, release: Path, digest: str, version: int, book: LoanBook) -> BuiltBento:
        """Pack the box, the book and a verified release into a Bento; the same contents give the same tag.

        Args:
            release: the release's folder; its reference rows stay behind, for they are clients' data.
            digest: the release's digest, kept as a label.
        """
        bentoml, store = self._opened()
        with tempfile.TemporaryDirectory(prefix="loan-bento-") as place:
            context = Path(place)
            _pack(context, release)
            contents = seal(context)
            tag = f"{NAME}:v{version}-{contents[:12]}"
            is_kept = self._is_sound(tag, contents)
            if not is_kept:
                # What a kill or a hand left there would be taken for the Bento itself.
                shutil.rmtree(Path(self.home) / "bentos" / NAME / tag.split(":")[1], ignore_errors=True)
                with _in_folder(context):
                    bentoml.bentos.build(
                        SERVICE,
                        _bento_store=store,
                        name=NAME,
                        version=tag.split(":")[1],
                        build_ctx=str(context),
                        include=["**"],
                        labels={
                            "release_digest": digest[:12],
                            "model_version": str(version),
                            "book": book.name,
                            "book_digest": book.digest,
                        },
                        description=f"Scores applications of {book.title!r} with model version {version}.",
                        python={"requirements_txt": LOCK, "lock_packages": False},
                        docker={"dockerfile_template": IMAGE},
                    )
        self._share(tag, is_kept=is_kept)
        packed = [path for path in self.folder_of(tag).rglob("*") if not set(path.parts) & set(BYPRODUCTS)]
        size = sum(path.stat().st_size for path in packed if path.is_file())
        return BuiltBento(tag=tag, bytes=size, release_digest=digest, contents=contents)

    def verified(self, bento: BuiltBento) -> Path:
        """A Bento's folder, after checking every file that was packed against the digest it was built from.

        Raises:
            Refusal: naming the file that is missing or altered.
        """
        folder = self.folder_of(bento.tag)
        verify(folder / "src", expected=bento.contents, byproducts=BYPRODUCTS)
        return folder

    def tag_of(self, version: int, release_digest: str) -> str:
        """The newest Bento that carries a release, verified.

        Raises:
            Refusal: when there is none, or it is damaged.
        """
        bentoml, store = self._opened()
        label = release_digest[:12]
        self._bring_newest(f"v{version}-")
        there = bentoml.bentos.list(NAME, _bento_store=store)
        carrying = [bento for bento in there if bento.info.labels.get("release_digest") == label]
        if not carrying:
            raise Refusal(
                f"No Bento in {self.home} carries version {version}, release {label}.", "Materialize loan_bento."
            )
        newest = max(carrying, key=lambda bento: bento.info.creation_time)
        contents = verify(Path(newest.path) / "src", byproducts=BYPRODUCTS)
        if not str(newest.tag).endswith(contents[:12]):
            raise Refusal(f"The Bento {newest.tag} is not what its name says.", "Materialize loan_bento again.")
        return str(newest.tag)

    def _is_sound(self, tag: str, contents: str) -> bool:
        try:
            verify(self.folder_of(tag) / "src", expected=contents, byproducts=BYPRODUCTS)
        except Refusal:
            return False
        return True

    def folder_of(self, tag: str) -> Path:
        """Where a Bento's files are.

        Raises:
            Refusal: when it is not there.
        """
        bentoml, store = self._opened()
        self._bring(tag)
        try:
            return Path(bentoml.bentos.get(tag, _bento_store=store).path)
        except bentoml.exceptions.BentoMLException:
            raise Refusal(f"The Bento {tag} is not in {self.home}.", "Materialize loan_bento again.") from None

    def _place_of(self, tag: str) -> Path:
        name, _, version = tag.partition(":")
        return Path(self.home) / "bentos" / name / version

    def _share(self, tag: str, *, is_kept: bool) -> None:
        """Put a Bento into the bucket, unless it was kept, and its archive there is still the one it came from or made.

        Any other archive under its name may be damaged, and is replaced.
        """
        noted = self._note_of(tag)
        if not self.bucket or (is_kept and noted.exists() and noted.read_text() == self._seen(tag)):
            return
        bentoml, store = self._opened()
        with tempfile.TemporaryDirectory(prefix="loan-bento-") as place:
            archive = bentoml.bentos.export_bento(tag, str(Path(place) / f"shared.{ARCHIVE}"), _bento_store=store)
            Bucket(self.bucket).upload(_archived(tag), Path(archive))
        self._note(tag, self._seen(tag))

    def _note_of(self, tag: str) -> Path:
        """Where it is noted which archive a Bento came from or made."""
        return Path(self.home) / "shared" / f"{tag.replace(':', '-')}.txt"

    def _note(self, tag: str, seen: str) -> None:
        noted = self._note_of(tag)
        noted.parent.mkdir(parents=True, exist_ok=True)
        noted.write_text(seen)

    def _seen(self, tag: str) -> str:
        """Which archive of a Bento is in the bucket, by its size and its instant; nothing where there is none."""
        there = (one for one in Bucket(self.bucket).names(NAME) if one.name == _archived(tag))
        return next((f"{self.bucket} {one.size} {one.modified.isoformat()}\n" for one in there), "")

    def _bring(self, tag: str) -> None:
        """Have a Bento of the bucket here that is not; whoever uses it verifies it."""
        if not self.bucket or self._place_of(tag).exists():
            return
        bentoml, store = self._opened()
        with tempfile.TemporaryDirectory(prefix="loan-bento-") as place:
            archive = Path(place) / f"brought.{ARCHIVE}"
            seen = self._seen(tag)
            if not seen:
                return
            Bucket(self.bucket).download(_archived(tag), archive)
            try:
                bentoml.bentos.import_bento(str(archive), _bento_store=store)
            except Exception as unreadable:  # whatever the vendor raises over bytes that are no archive
                shutil.rmtree(self._place_of(tag), ignore_errors=True)
                raise Refusal(
                    f"The Bento {tag} in {self.bucket} is damaged.", "Materialize loan_bento again."
                ) from unreadable
            self._note(tag, seen)

    def _bring_newest(self, prefix: str) -> None:
        """Have the newest Bento of the bucket here whose version begins so."""
        if not self.bucket:
            return
        there = [one for one in Bucket(self.bucket).names(NAME) if one.name.startswith(f"{NAME}/{prefix}")]
        if there:
            newest = max(there, key=lambda one: one.modified).name
            self._bring(newest.removesuffix(f".{ARCHIVE}").replace("/", ":"))

    def _opened(self) -> tuple[Any, Any]:
        """BentoML, never phoning home, and the store below `home`: its own one is the first that a process opened."""
        bentos = Path(self.home) / "bentos"
        bentos.mkdir(parents=True, exist_ok=True)
        os.environ["BENTOML_HOME"] = self.home
        os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
        import bentoml
        from bentoml._internal.bento.bento import BentoStore as Opened

        # It warns that a Bento with an image of its own is of the first kind, which it is meant to be.
        logging.getLogger("bentoml.build").setLevel(logging.ERROR)
        return bentoml, Opened(bentos)


def _archived(tag: str) -> str:
    """The name of a Bento's archive in the bucket."""
    return f"{tag.replace(':', '/')}.{ARCHIVE}"


def _pack(context: Path, release: Path) -> None:
    """Copy the box, its rooms of the platform and the release into an empty folder."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc", "data")
    # Found, not imported: BentoML is to import the copy in the context.
    shutil.copytree(_home_of("bento"), context / "bento", ignore=ignore)
    platform = _home_of("loan_assets")
    for name in CARRIED:
        source, target = platform / name, context / "loan_assets" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=ignore)
        else:
            shutil.copy2(source, target)
    shutil.copytree(release, context / "release", ignore=shutil.ignore_patterns(REFERENCE))


def _home_of(package: str) -> Path:
    """Where an installed package's files are, without importing it."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise Refusal(f"The package {package} is not installed.", "Run `make setup`, or install loan_assets again.")
    return Path(found.submodule_search_locations[0])


@contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    """BentoML imports the service from the working directory; put that back afterwards, and forget what it imported.

    A later build in this process would look for the box in a folder that is gone.
    """
    before, known, paths = Path.cwd(), set(sys.modules), list(sys.path)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = paths
        for name in set(sys.modules) - known:
            if name.partition(".")[0] == "bento":
                del sys.modules[name]
