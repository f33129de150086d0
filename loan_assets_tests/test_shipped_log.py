"""The endpoint's log in a bucket: every whole line arrives once, whoever ships it and whoever is killed meanwhile."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from loan_assets.bucket import Bucket
from loan_assets.refusal import Refusal
from loan_assets.shipped_log import ShippedLog
from loan_assets_tests.services import free_port

DAY, FILE = "2026-11-24", "7-abc.log"

SHIPPER = """
import sys
from pathlib import Path
from loan_assets import shipped_log
shipped_log.LARGEST_PART = 1_000
log = shipped_log.ShippedLog(shipped_log.Bucket(sys.argv[1]), Path(sys.argv[2]))
print("ready", flush=True)
while True:
    log.ship()
"""


def lines(first: int, last: int) -> bytes:
    return b"".join(b"line %06d\n" % number for number in range(first, last))


def wrote(folder: Path, content: bytes, day: str = DAY, file: str = FILE) -> None:
    (folder / day).mkdir(parents=True, exist_ok=True)
    with (folder / day / file).open("ab") as log:
        log.write(content)


def rested(folder: Path) -> None:
    """As if nobody had written any file for two days."""
    for file in folder.rglob("*.log"):
        os.utime(file, times=(0, file.stat().st_mtime - 2 * 86_400))


def brought(bucket: str, folder: Path, day: str = DAY, file: str = FILE) -> bytes:
    """What was shipped by now: nothing where a kill came first."""
    there = ShippedLog(Bucket(bucket), folder).bring(day) / file
    return there.read_bytes() if there.exists() else b""


def test_whole_lines_are_shipped_and_the_rest_of_a_line_follows(bucket: str, tmp_path: Path) -> None:
    box, platform = tmp_path / "box", tmp_path / "platform"
    log = ShippedLog(Bucket(bucket), box)
    assert log.ship() == 0
    wrote(box, lines(0, 3) + b"line 0000")
    assert log.ship() == len(b"line 0000")
    assert brought(bucket, platform) == lines(0, 3)
    wrote(box, b"03\n")
    assert log.ship() == 0
    assert log.ship() == 0
    assert brought(bucket, platform) == brought(bucket, tmp_path / "new") == lines(0, 4)


def test_a_file_is_shipped_once_by_whichever_process_and_after_a_restart(bucket: str, tmp_path: Path) -> None:
    box = tmp_path / "box"
    shippers = [ShippedLog(Bucket(bucket), box) for _ in range(3)]
    for number in range(9):
        wrote(box, lines(10 * number, 10 * number + 10))
        shippers[number % 3].ship()
    wrote(box, lines(90, 100))
    ShippedLog(Bucket(bucket), box).ship()
    assert brought(bucket, tmp_path / "platform") == lines(0, 100)
    parts = list(Bucket(bucket).names())
    assert sum(part.size for part in parts) == len(lines(0, 100))


def test_kills_in_mid_shipment_neither_lose_nor_repeat_a_line(bucket: str, tmp_path: Path) -> None:
    box, platform, generator = tmp_path / "box", tmp_path / "platform", random.Random(3)
    wrote(box, lines(0, 1))
    for turn in range(8):
        shipper = subprocess.Popen([sys.executable, "-c", SHIPPER, bucket, str(box)], stdout=subprocess.PIPE)
        assert shipper.stdout is not None
        shipper.stdout.readline()
        for number in range(20):
            wrote(box, lines(1 + turn * 4_000 + number * 200, 1 + turn * 4_000 + number * 200 + 200))
            time.sleep(generator.uniform(0, 0.01))
        shipper.send_signal(signal.SIGKILL)
        shipper.wait()
        shipper.stdout.close()
        assert lines(0, 32_001).startswith(brought(bucket, platform))
    ShippedLog(Bucket(bucket), box).ship()
    assert brought(bucket, platform) == lines(0, 32_001)


def test_a_store_that_is_away_delays_and_loses_nothing(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, there = tmp_path / "box", ShippedLog(Bucket(bucket), tmp_path / "box")
    wrote(box, lines(0, 5))
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
        with pytest.raises(Refusal, match="cannot be reached"):
            ShippedLog(Bucket(bucket), box).ship()
    there.ship()
    assert brought(bucket, tmp_path / "platform") == lines(0, 5)


def test_days_that_were_shipped_may_go_and_others_stay(bucket: str, tmp_path: Path) -> None:
    box = tmp_path / "box"
    log = ShippedLog(Bucket(bucket), box)
    for day in ("2026-11-22", "2026-11-23", "2026-11-24"):
        wrote(box, lines(0, 3), day=day)
    log.ship()
    log.forget(before="2026-11-24")
    assert len(list(box.iterdir())) == 3  # somebody wrote them a moment ago
    wrote(box, lines(3, 4), day="2026-11-22")
    rested(box)
    log.forget(before="2026-11-24")
    assert sorted(place.name for place in box.iterdir()) == ["2026-11-22", "2026-11-24"]
    log.ship()
    rested(box)
    log.forget(before="2026-11-24")
    assert [place.name for place in box.iterdir()] == ["2026-11-24"]
    assert brought(bucket, tmp_path / "platform", day="2026-11-22") == lines(0, 4)


def test_where_room_is_short_what_was_shipped_goes_and_nothing_else(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, full = tmp_path / "box", len(lines(0, 10))

    def free(share: float) -> None:
        disk = SimpleNamespace(f_blocks=10 * full, f_bavail=int(share * 10 * full), f_frsize=1)
        monkeypatch.setattr(os, "statvfs", lambda _: disk)

    log = ShippedLog(Bucket(bucket), box)
    for day in ("2026-11-23", "2026-11-24"):
        for file in ("1-a.log", "2-b.log"):
            wrote(box, lines(0, 10), day=day, file=file)
    wrote(box, lines(0, 9), day="2026-11-23", file="3-c.log")  # its writer is not done with it
    another = ShippedLog(Bucket(bucket), box)
    assert another.ship() == log.ship() == 0
    wrote(box, lines(0, 10), day="2026-11-22", file="1-a.log")  # nobody has shipped it

    def there() -> list[str]:
        return sorted(file.relative_to(box).as_posix() for file in box.rglob("*.log"))

    before = there()
    free(0.1)
    log.make_room(full, most=7 * full)
    assert there() == before
    free(0.05)
    log.make_room(full, most=7 * full)
    assert there() == [name for name in before if name != "2026-11-23/1-a.log"]
    free(0.5)
    log.make_room(full, most=5 * full)
    assert there() == [name for name in before if name not in ("2026-11-23/1-a.log", "2026-11-23/2-b.log")]
    log.make_room(full, most=full)
    assert there() == ["2026-11-22/1-a.log", "2026-11-23/3-c.log"]
    assert another.ship() == 0  # what another process has removed keeps nobody from shipping the rest
    assert brought(bucket, tmp_path / "platform", day="2026-11-24", file="2-b.log") == lines(0, 10)
    assert brought(bucket, tmp_path / "platform", day="2026-11-22", file="1-a.log") == lines(0, 10)


def test_a_copy_that_a_kill_left_half_written_is_made_whole(bucket: str, tmp_path: Path) -> None:
    box, log, platform = tmp_path / "box", ShippedLog(Bucket(bucket), tmp_path / "box"), tmp_path / "platform"
    for number in range(3):
        wrote(box, lines(10 * number, 10 * number + 10))
        log.ship()
    whole = brought(bucket, platform)
    for length in (len(whole) - 7, len(whole) // 2 + 3, 5, 0):
        (platform / DAY / FILE).write_bytes(whole[:length])
        assert brought(bucket, platform) == whole


def test_two_readers_at_once_do_not_write_a_part_twice(bucket: str, tmp_path: Path) -> None:
    box, log = tmp_path / "box", ShippedLog(Bucket(bucket), tmp_path / "box")
    for number in range(20):
        wrote(box, lines(number, number + 1))
        log.ship()
    readers = [
        threading.Thread(target=ShippedLog(Bucket(bucket), tmp_path / "here").bring, args=(DAY,)) for _ in range(4)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert (tmp_path / "here" / DAY / FILE).read_bytes() == lines(0, 20)


def test_a_part_that_is_missing_is_named(bucket: str, tmp_path: Path) -> None:
    box, log = tmp_path / "box", ShippedLog(Bucket(bucket), tmp_path / "box")
    for number in range(3):
        wrote(box, lines(number, number + 1))
        log.ship()
    Bucket(bucket).delete([list(Bucket(bucket).names())[1].name])
    with pytest.raises(Refusal, match=f"{DAY}/{FILE} lacks what is between byte 12 and 24"):
        brought(bucket, tmp_path / "platform")
