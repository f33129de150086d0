"""The promises of the store: whole or not at all, verified before use, the version before always readable."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from loan_assets.refusal import Refusal
from loan_assets.resources.versioned_store import VersionedStore

WRITER = """
import sys
from pathlib import Path
from loan_assets.resources.versioned_store import VersionedStore
store = VersionedStore(root=Path(sys.argv[1]), keep=3)
print("ready", flush=True)
number = 0
while True:
    number += 1
    store.write("shelf", lambda folder: (folder / "bytes").write_bytes(str(number).encode() * 200_000))
"""


def text(words: str):  # type: ignore[no-untyped-def]
    def fill(folder: Path) -> None:
        (folder / "words.txt").write_text(words)

    return fill


def words(store: VersionedStore, shelf: str = "shelf") -> str:
    version = store.current(shelf)
    assert version is not None
    return (version.folder / "words.txt").read_text()


def test_the_same_content_has_the_same_digest_and_one_folder(tmp_path: Path) -> None:
    store = VersionedStore(root=tmp_path, keep=3)
    assert store.write("shelf", text("a")).digest == store.write("shelf", text("a")).digest
    assert len(store.versions("shelf")) == 1


def test_a_writer_that_fails_leaves_the_version_before_in_force(tmp_path: Path) -> None:
    store = VersionedStore(root=tmp_path, keep=3)
    store.write("shelf", text("good"))

    def half(folder: Path) -> None:
        (folder / "words.txt").write_text("half")
        raise ValueError("the writer broke")

    with pytest.raises(ValueError, match="the writer broke"):
        store.write("shelf", half)
    assert words(store) == "good"
    assert not list((tmp_path / "shelf").glob(".draft-*"))


def test_only_the_last_versions_are_kept(tmp_path: Path) -> None:
    store = VersionedStore(root=tmp_path, keep=3)
    for number in range(6):
        store.write("shelf", text(str(number)))
    assert words(store) == "5"
    assert len(store.versions("shelf")) == 3


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


def test_a_hundred_kills_in_mid_write_tear_nothing(tmp_path: Path) -> None:
    store = VersionedStore(root=tmp_path, keep=3)
    generator = random.Random(7)
    seen = 0
    for _ in range(100):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(generator.uniform(0.0, 0.03))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        version = store.current("shelf")
        if version is not None:
            seen += 1
            content = (version.folder / "bytes").read_bytes()
            assert len(content) % 200_000 == 0
    assert seen > 90
    store.write("shelf", text("after"))
    assert not list((tmp_path / "shelf").glob(".draft-*"))
