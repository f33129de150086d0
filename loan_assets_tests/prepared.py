"""Platforms on which the graph was run once, kept until the code or the day changes, and copied for who needs one.

Here: what is kept of one, and putting it back, on one machine and on Postgres, Redis and S3. Not here: the tests.
"""

from __future__ import annotations

import hashlib
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from loan_assets import online_redis
from loan_assets.bucket import Bucket
from loan_assets_tests.services import Postgres

ROOT = Path(__file__).resolve().parents[1]
MADE_OF = ("loan_assets/**/*", "bento/**/*", "requirements.lock", "loan_assets_tests/prepared.py")
DATABASES = {"LOAN_DAGSTER_STORAGE": "dagster", "LOAN_MLFLOW_URI": "mlflow", "LOAN_FEAST_REGISTRY": "feast"}
REDIS = {"LOAN_FEAST_ONLINE": "feast-online", "LOAN_ONLINE": "online"}


def fingerprint() -> str:
    """What a prepared platform depends on: every file of the code, what is installed, and the day."""
    told = hashlib.sha256(f"{sys.version} {datetime.now(UTC):%F}".encode())
    for pattern in MADE_OF:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and "__pycache__" not in path.parts:
                told.update(f"{path.relative_to(ROOT)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return told.hexdigest()[:16]


@contextmanager
def once(kept: Path, name: str, make: Callable[[Path], None]) -> Iterator[Path]:
    """The folder that `make` has filled, by whichever process came first; those of other code are removed.

    It is filled where it stays, for what was made in it may say where it is.
    """
    kept.mkdir(parents=True, exist_ok=True)
    folder = kept / f"{name}-{fingerprint()}"
    with FileLock(kept / f"{name}.lock"):
        if not (folder / "whole").exists():
            for other in kept.glob(f"{name}-*"):
                shutil.rmtree(other)
            folder.mkdir()
            make(folder)
            (folder / "whole").touch()
        yield folder


@dataclass(frozen=True)
class Elsewhere:
    """A platform on Postgres, Redis and S3: the variables that name its places, and the server of its databases."""

    variables: Mapping[str, str]
    bucket: str
    postgres: Postgres

    def keep(self, home: Path, folder: Path) -> None:
        """Write down everything that is in its places."""
        shutil.copytree(home, folder / "home")
        for variable, name in DATABASES.items():
            self._postgres("pg_dump", "-Fc", "-f", str(folder / f"{name}.dump"), self.variables[variable])
        for variable, name in REDIS.items():
            client = online_redis.connected(self.variables[variable])
            held = [(key, max(client.pttl(key), 0), client.dump(key)) for key in client.scan_iter(count=1_000)]
            (folder / f"{name}.pickle").write_bytes(pickle.dumps(held))
        objects = Bucket(self.bucket)
        for one in objects.names():
            file = folder / "objects" / one.name
            file.parent.mkdir(parents=True, exist_ok=True)
            objects.download(one.name, file)

    def put_back(self, folder: Path, home: Path) -> None:
        """Make its places hold what was written down, and nothing else."""
        shutil.copytree(folder / "home", home)
        for variable, name in DATABASES.items():
            dump = str(folder / f"{name}.dump")
            self._postgres("pg_restore", "--clean", "--if-exists", "--dbname", self.variables[variable], dump)
        for variable, name in REDIS.items():
            client = online_redis.connected(self.variables[variable])
            client.flushdb()
            with client.pipeline(transaction=False) as told:
                for key, lives, value in pickle.loads((folder / f"{name}.pickle").read_bytes()):
                    told.restore(key, lives, value)
                told.execute()
        objects = Bucket(self.bucket)
        objects.delete([one.name for one in objects.names()])
        for file in sorted(path for path in (folder / "objects").rglob("*") if path.is_file()):
            objects.upload(file.relative_to(folder / "objects").as_posix(), file)

    def _postgres(self, program: str, *arguments: str) -> None:
        subprocess.run([self.postgres.program(program), *arguments], check=True)
