"""The promises of the store: whole or not at all, verified before use, the version before always readable.

What holds for a folder and for a bucket is one test, run on both; a bucket is seen by two machines.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from loan_assets import mirror
from loan_assets.bucket import Bucket
from loan_assets.refusal import Overtaken, Refusal
from loan_assets.resources.versioned_store import VersionedStore
from loan_assets_tests.services import free_port

WRITER = """
import sys
from pathlib import Path
from datetime import timedelta
from loan_assets import mirror
from loan_assets.resources.versioned_store import VersionedStore
mirror.YOUNG = timedelta(0)
store = VersionedStore(root=Path(sys.argv[1]), keep=3, bucket=sys.argv[2])
print("ready", flush=True)
number = 0
while True:
    number += 1
    store.write("shelf", lambda folder: (folder / "bytes").write_bytes(str(number).encode() * 200_000))
"""


Machine = Callable[[str], VersionedStore]


@pytest.fixture(params=["a folder", "a bucket"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    """The store as a machine of some name sees it; with a folder all machines are this one."""
    if request.param == "a folder":
        return lambda _: VersionedStore(root=tmp_path / "store", keep=3)
    place: str = request.getfixturevalue("bucket")
    request.getfixturevalue("monkeypatch").setattr(mirror, "YOUNG", timedelta(0))
    return lambda name: VersionedStore(root=tmp_path / name, keep=3, bucket=place)


def text(words: str):  # type: ignore[no-untyped-def]
    def fill(folder: Path) -> None:
        (folder / "words.txt").write_text(words)

    return fill


def words(store: VersionedStore, shelf: str = "shelf") -> str:
    version = store.current(shelf)
    assert version is not None
    return (version.folder / "words.txt").read_text()


def test_the_same_content_has_the_same_digest_and_one_folder(machine: Machine) -> None:
    store = machine("one")
    assert store.write("shelf", text("a")).digest == store.write("shelf", text("a")).digest
    assert len(store.versions("shelf")) == 1


def test_a_writer_that_fails_leaves_the_version_before_in_force(machine: Machine) -> None:
    store = machine("one")
    store.write("shelf", text("good"))

    def half(folder: Path) -> None:
        (folder / "words.txt").write_text("half")
        raise ValueError("the writer broke")

    with pytest.raises(ValueError, match="the writer broke"):
        store.write("shelf", half)
    assert words(store) == words(machine("other")) == "good"
    assert not list((store.root / "shelf").glob(".draft-*"))


def test_only_the_last_versions_are_kept_and_what_is_spared(machine: Machine) -> None:
    store = machine("one")
    spared = store.write("shelf", text("spared")).digest
    for number in range(6):
        store.write("shelf", text(str(number)), spared=[spared])
    kept = {one.name for one in store.versions("shelf")}
    assert len(kept) == 4
    assert words(store) == "5"
    other = machine("other")
    assert words(other) == "5"
    assert (other.fetch("shelf", spared) / "words.txt").read_text() == "spared"
    assert spared[:16] in kept
    gone = next(digest for digest in written("01234") if digest[:16] not in kept)
    with pytest.raises(Refusal):
        machine("third").fetch("shelf", gone)


def test_a_version_that_is_put_in_force_again_counts_as_new(machine: Machine) -> None:
    store = VersionedStore(root=machine("one").root, keep=2, bucket=machine("one").bucket)
    again = store.write("shelf", text("a")).digest
    for one in ("b", "a", "c"):
        time.sleep(1.1 if store.bucket else 0.01)  # objects are dated to the second
        store.write("shelf", text(one))
    assert (machine("other").fetch("shelf", again) / "words.txt").read_text() == "a"


def test_what_another_machine_has_put_in_force_meanwhile_is_not_retired(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "YOUNG", timedelta(0))
    one, other = (VersionedStore(root=tmp_path / name, keep=1, bucket=bucket) for name in ("one", "other"))
    first = one.write("shelf", text("first")).digest
    second = one.write("shelf", text("second")).digest
    other.write("shelf", text("first"))
    mirror.Mirror(bucket=Bucket(bucket), folder=one.root).retire("shelf", {second[:16]}, 1)
    assert other.pointed("shelf") == first
    assert words(VersionedStore(root=tmp_path / "third", keep=1, bucket=bucket)) == "first"


def written(contents: str) -> list[str]:
    """The digests of versions that hold one character each."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = VersionedStore(root=Path(folder), keep=99)
        return [scratch.write("shelf", text(one)).digest for one in contents]


def test_a_version_is_written_only_after_the_one_that_it_rests_on(machine: Machine) -> None:
    store, other = machine("one"), machine("other")
    first = store.write("shelf", text("first"), after=None).digest
    with pytest.raises(Overtaken):
        other.write("shelf", text("also first"), after=None)
    store.write("shelf", text("second"), after=first)
    with pytest.raises(Overtaken):
        other.write("shelf", text("another second"), after=first)
    assert words(store) == words(other) == "second"


def test_shelves_are_those_on_which_something_is_in_force(machine: Machine) -> None:
    store, other = machine("one"), machine("other")
    assert other.shelves() == other.shelves("days") == ()
    for shelf in ("v2", "v1", "days/2026-11-24", "days/2026-11-25"):
        store.write(shelf, text(shelf))
    with pytest.raises(ValueError, match="broken"):
        store.write("v3", broken)
    assert other.shelves() == ("v1", "v2")
    assert other.shelves("days") == ("2026-11-24", "2026-11-25")
    assert other.pointed("v3") is None
    assert other.current("v3") is None


def broken(_: Path) -> None:
    raise ValueError("broken")


def test_of_two_machines_that_share_a_bucket_the_slower_writer_is_told(bucket: str, tmp_path: Path) -> None:
    one, other = (VersionedStore(root=tmp_path / name, keep=3, bucket=bucket) for name in ("one", "other"))

    def slow(folder: Path) -> None:
        other.write("shelf", text("faster"))
        text("slower")(folder)

    with pytest.raises(Overtaken, match="written by another process meanwhile"):
        one.write("shelf", slow)
    assert words(one) == words(other) == "faster"


def test_a_machine_that_only_reads_keeps_no_more_copies_than_versions_are_kept(bucket: str, tmp_path: Path) -> None:
    one, other = (VersionedStore(root=tmp_path / name, keep=3, bucket=bucket) for name in ("one", "other"))
    for number in range(8):
        one.write("shelf", text(str(number)))
        assert words(other) == str(number)
    assert len(other.versions("shelf")) == 3


def test_a_damaged_copy_is_brought_anew_and_a_damaged_object_is_refused(bucket: str, tmp_path: Path) -> None:
    one, other = (VersionedStore(root=tmp_path / name, keep=3, bucket=bucket) for name in ("one", "other"))
    version = one.write("shelf", text("whole"))
    (version.folder / "words.txt").write_text("altered")
    assert words(one) == "whole"
    Bucket(bucket).write(f"shelf/{version.digest[:16]}/words.txt", b"altered")
    with pytest.raises(Refusal, match="corrupt"):
        other.current("shelf")
    assert not list((tmp_path / "other" / "shelf").glob("*"))


def test_a_store_that_is_away_is_named_within_seconds_and_the_copy_stays(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = VersionedStore(root=tmp_path, keep=3, bucket=bucket)
    store.write("shelf", text("good"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    began = time.monotonic()
    with pytest.raises(Refusal, match=rf"{bucket} cannot be reached") as refused:
        store.current("shelf")
    assert "AWS_ENDPOINT_URL" in refused.value.next_step
    assert time.monotonic() - began < 15
    assert VersionedStore(root=tmp_path, keep=3).current("shelf") is not None
    monkeypatch.undo()


def test_a_bucket_that_is_not_there_is_named(bucket: str, tmp_path: Path) -> None:
    store = VersionedStore(root=tmp_path, keep=3, bucket="s3://nowhere/x")
    with pytest.raises(Refusal, match="s3://nowhere/x is in no bucket that is there"):
        store.current("shelf")
    with pytest.raises(Refusal, match="s3://nowhere/x is in no bucket that is there"):
        store.write("shelf", text("x"))


def test_plain_http_is_refused_unless_it_is_allowed(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(Refusal, match="plain HTTP, which AWS_ALLOW_HTTP does not allow"):
        VersionedStore(root=tmp_path, keep=3, bucket=bucket).current("shelf")


def test_any_altered_byte_is_noticed_before_use_and_healed_by_writing_again(tmp_path: Path) -> None:
    store = VersionedStore(root=tmp_path, keep=3)
    generator = random.Random(0)
    content = generator.randbytes(5_000)

    def fill(folder: Path) -> None:
        (folder / "words.txt").write_bytes(content)

    path = store.write("shelf", fill).folder / "words.txt"
    for mutation in range(200):
        altered = bytearray(content)
        if mutation % 2:
            altered = altered[: generator.randrange(len(content))]
        else:
            altered[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(altered)
        with pytest.raises(Refusal, match=r"words\.txt is corrupt"):
            store.current("shelf")
    store.write("shelf", fill)
    version = store.current("shelf")
    assert version is not None
    assert (version.folder / "words.txt").read_bytes() == content


def test_a_full_disk_is_named_and_nothing_half_written_remains(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        store = VersionedStore(root=tmp_path, keep=3)
        store.write("shelf", text("good"))
        with pytest.raises(Refusal, match="No space left") as refused:
            store.write("shelf", text("x" * 2_000_000))
        assert str(tmp_path) in refused.value.cause
        assert words(store) == "good"
        assert store.write("shelf", text("small again")).digest
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    store = VersionedStore(root=tmp_path, keep=100)

    def write(name: int) -> None:
        for number in range(10):
            store.write("shelf", text(f"{name}-{number}"))

    writers = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(store.versions("shelf")) == 40
    assert words(store)


def test_a_hundred_kills_in_mid_write_tear_nothing(machine: Machine) -> None:
    store = machine("one")
    generator = random.Random(7)
    seen, longest = 0, 0.1 if store.bucket else 0.03
    for _ in range(100):
        command = [sys.executable, "-c", WRITER, str(store.root), store.bucket]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(generator.uniform(0.0, longest))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        version = machine("other").current("shelf")
        if version is not None:
            seen += 1
            content = (version.folder / "bytes").read_bytes()
            assert len(content) % 200_000 == 0
    # The first kills may come before anything was written whole, the more of them the busier the machine.
    assert seen > 60
    store.write("shelf", text("after"))
    assert words(machine("other")) == "after"
    assert not list((store.root / "shelf").glob(".draft-*"))
