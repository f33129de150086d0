"""A Bento that a kill or a hand damaged is noticed, whichever file it was, and made again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from loan_assets.books import LoanBook
from loan_assets.bucket import Bucket
from loan_assets.refusal import Refusal
from loan_assets.resources.bento_store import BuiltBento
from loan_assets.resources.release_store import ReleaseStore
from loan_assets_tests.conftest import Home, in_a_fresh_process

BUILD = """
import sys
from pathlib import Path
from loan_assets.books import the_book
from loan_assets.resources.bento_store import BentoStore
store = BentoStore(home=sys.argv[1])
built = store.build(Path(sys.argv[2]), sys.argv[3], 1, the_book())
store.verified(built)
print(built.tag)
"""
DAMAGES: dict[str, Callable[[Path], object]] = {
    "killed before its description was written": lambda bento: (bento / "bento.yaml").unlink(),
    "code altered": lambda bento: (bento / "src" / "bento" / "scorer.py").write_text("raise SystemExit\n"),
    "model altered": lambda bento: (bento / "src" / "release" / "trees" / "value.npy").write_bytes(b"no trees"),
    "a file added": lambda bento: (bento / "src" / "sitecustomize.py").write_text("raise SystemExit\n"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_bento_is_refused_and_built_again(damage: str, ran: Home, tmp_path: Path, book: LoanBook) -> None:
    built: BuiltBento = ran.read("loan_bento", BuiltBento)
    home = tmp_path / "bentoml"
    shutil.copytree(ran.settings.bentoml_home, home)
    folder = home / "bentos" / "loan_default" / built.tag.split(":")[1]
    DAMAGES[damage](folder)
    look = f"from loan_assets.resources.bento_store import *\nBentoStore(home={str(home)!r}).verified({built!r})"
    refused = in_a_fresh_process(look)
    assert Refusal.__name__ in refused.stderr
    champion = ReleaseStore(root=str(ran.settings.releases)).champion()
    arguments = [str(home), str(ran.settings.releases / champion.path), champion.digest]
    again = in_a_fresh_process(BUILD, *arguments)
    assert again.stdout.strip() == built.tag, again.stderr
    assert in_a_fresh_process(look).returncode == 0


# Without the finder by which an editable installation makes this repository importable from anywhere, and without what
# an image does not have, for only the packages that the Bento names are installed there.
ALONE = """
import sys
for name in ("dagster", "feast", "filelock", "fsspec", "mlflow", "pandas", "pyarrow", "rich", "sklearn", "typer"):
    sys.modules[name] = None
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder)]
sys.path[0:0] = [sys.argv[1]]
import bento.application, bento.exchange, bento.places, loan_assets
print(bento.application.__file__, loan_assets.__file__)
"""


def test_what_a_bento_carries_is_enough_to_start_it(ran: Home, tmp_path: Path) -> None:
    built: BuiltBento = ran.read("loan_bento", BuiltBento)
    packed = ran.settings.bentoml_home / "bentos" / "loan_default" / built.tag.split(":")[1] / "src"
    source = tmp_path / "src"
    shutil.copytree(packed, source)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(source)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [Path(path).is_relative_to(source) for path in done.stdout.split()] == [True, True]


IN_A_BUCKET = """
import sys
from loan_assets.resources.bento_store import BentoStore
store = BentoStore(home=sys.argv[1], bucket=sys.argv[2])
tag = store.tag_of(1, sys.argv[3])
print(tag, store.folder_of(tag))
"""
SHARE = """
import sys
from pathlib import Path
from loan_assets.books import the_book
from loan_assets.resources.bento_store import BentoStore
BentoStore(home=sys.argv[1], bucket=sys.argv[2]).build(Path(sys.argv[3]), sys.argv[4], 1, the_book())
"""


def test_a_bento_of_a_bucket_is_found_on_another_machine_and_refused_where_it_is_damaged(
    ran: Home, tmp_path: Path, bucket: str
) -> None:
    champion = ReleaseStore(root=str(ran.settings.releases)).champion()
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(ran.settings.bentoml_home, here)
    release = str(ran.settings.releases / champion.path)
    shared = in_a_fresh_process(SHARE, str(here), bucket, release, champion.digest)
    assert shared.returncode == 0, shared.stderr
    brought = in_a_fresh_process(IN_A_BUCKET, str(there), bucket, champion.digest)
    tag, folder = brought.stdout.split()
    assert tag == ran.read("loan_bento", BuiltBento).tag, brought.stderr
    assert Path(folder).is_relative_to(there)
    (archive,) = Bucket(bucket).names()
    for machine in (here, there):
        kept = in_a_fresh_process(SHARE, str(machine), bucket, release, champion.digest)
        assert kept.returncode == 0, kept.stderr
        assert list(Bucket(bucket).names()) == [archive]
    Bucket(bucket).delete([archive.name])
    lacking = in_a_fresh_process(SHARE, str(here), bucket, release, champion.digest)
    assert lacking.returncode == 0, lacking.stderr
    Bucket(bucket).write(archive.name, b"no archive")
    shutil.rmtree(there)
    refused = in_a_fresh_process(IN_A_BUCKET, str(there), bucket, champion.digest)
    assert "is damaged" in refused.stderr
    again = in_a_fresh_process(SHARE, str(here), bucket, release, champion.digest)
    assert again.returncode == 0, again.stderr
    assert in_a_fresh_process(IN_A_BUCKET, str(there), bucket, champion.digest).stdout.split()[0] == tag
