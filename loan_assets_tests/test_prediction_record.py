"""The log line: written whole, read whole, and a line that is not whole is counted and left out."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from bento.prediction_log import CannotRecord, PredictionLog, clock
from loan_assets.policy import POLICY, Endpoint
from loan_assets.prediction_record import PredictionRecord, has_real_answer, read_day, real_or_rehearsed
from loan_assets.refusal import Refusal

RECORD = PredictionRecord(
    request_id="a" * 32,
    row=0,
    answered_at="2026-02-02T10:00:00.000000+00:00",
    route="/score",
    asked_by="application",
    client_id=7,
    book="uci_credit_card",
    book_digest="0" * 12,
    model_version=1,
    release_digest="1" * 12,
    arm="champion",
    default_probability=0.1 + 0.2,
    decision="refuse",
    reasons=("utilisation", "headroom"),
    received={"credit_limit": 20_000.0},
    features=(0.5, None),
)


def some(count: int) -> list[PredictionRecord]:
    return [replace(RECORD, request_id=f"{number:032x}") for number in range(count)]


def replace_limits(**changed: Any) -> Endpoint:
    return dataclasses.replace(POLICY.endpoint, **changed)


def test_what_was_written_is_read_to_the_last_bit(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    log.append(some(3))
    log.append([replace(RECORD, answered_at="2026-02-03T00:00:00.000000+00:00", client_id=None)])
    assert read_day(tmp_path / "2026-02-02") == (some(3), ())
    (other,), _ = read_day(tmp_path / "2026-02-03")
    assert (other.default_probability, other.client_id) == (0.1 + 0.2, None)


def test_a_day_without_answers_is_empty(tmp_path: Path) -> None:
    assert read_day(tmp_path / "2026-02-02") == ([], ())


def test_a_line_cut_at_any_byte_or_altered_in_any_byte_is_left_out_and_counted(tmp_path: Path) -> None:
    day = tmp_path / "2026-02-02"
    day.mkdir()
    first, second = (record.line() for record in some(2))
    for cut in range(1, len(second)):
        (day / "1.log").write_bytes(first + second[:cut])
        records, damages = read_day(day)
        assert (records, [damage.lines for damage in damages]) == (some(1), [1])
    for position in range(len(first)):
        altered = bytearray(first)
        altered[position] ^= 1
        (day / "1.log").write_bytes(bytes(altered) + second)
        records, damages = read_day(day)
        assert some(2)[0] not in records
        assert some(2)[1] in records or position == len(first) - 1  # an altered line end takes its neighbour along
        assert sum(damage.lines for damage in damages) >= 1
        assert damages[0].file == "1.log"


def test_of_a_record_found_twice_the_later_counts(tmp_path: Path) -> None:
    day = tmp_path / "2026-02-02"
    day.mkdir()
    later = replace(RECORD, answered_at="2026-02-02T10:00:01.000000+00:00", model_version=2)
    (day / "1.log").write_bytes(later.line())
    (day / "2.log").write_bytes(RECORD.line())
    assert read_day(day)[0] == [later]


def test_a_real_answer_drives_out_the_rehearsed_ones_and_a_rehearsal_the_one_before() -> None:
    first, second = (
        [replace(record, rehearsal=name, answered_at=f"2026-02-02T1{hour}:00:00.000000+00:00") for record in some(3)]
        for hour, name in enumerate(("one", "two"))
    )
    assert real_or_rehearsed([*first, *second]) == second
    assert real_or_rehearsed([*first, RECORD, *second]) == [RECORD]
    assert real_or_rehearsed([]) == []


def test_whether_anybody_asked_in_earnest_is_told_by_the_first_who_did(tmp_path: Path) -> None:
    day = tmp_path / "2026-02-02"
    assert not has_real_answer(day)
    day.mkdir()
    rehearsed = replace(RECORD, rehearsal="one").line()
    (day / "1.log").write_bytes(rehearsed + RECORD.line()[:-2])
    assert not has_real_answer(day)
    (day / "2.log").write_bytes(rehearsed + RECORD.line())
    assert has_real_answer(day)
    (day / "3.log").mkdir()  # nothing is read beyond the first
    assert has_real_answer(day)
    (day / "2.log").unlink()
    with pytest.raises(Refusal, match=r"The log of 2026-02-02 cannot be read at .*3\.log"):
        has_real_answer(day)


def test_a_file_that_is_full_is_followed_by_another(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, replace_limits(log_file_bytes=1_500))
    for record in some(9):
        log.append([record])
    log.close()
    day = tmp_path / "2026-02-02"
    assert len(list(day.iterdir())) > 2
    assert read_day(day) == (some(9), ())


def test_what_was_written_is_forced_to_disk_by_a_sync(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    log.append(some(2))
    assert log.backlog == sum(len(record.line()) for record in some(2)) == log.bytes
    forced: list[int] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fdatasync", forced.append)
        log.sync()
    assert (log.backlog, len(forced)) == (0, 1)
    other = PredictionLog(tmp_path)
    assert other.bytes == log.bytes


def test_a_disk_that_fails_is_tried_again_until_all_is_forced(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, replace_limits(log_file_bytes=600))
    for record in some(4):
        log.append([record])
    written, descriptors = log.backlog, len(os.listdir("/proc/self/fd"))

    def failing(_: int) -> None:
        raise OSError(5, "Input/output error")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fdatasync", failing)
        for _ in range(3):
            with pytest.raises(OSError, match="Input/output"):
                log.sync()
    assert log.backlog == written
    log.sync()
    assert log.backlog == 0
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    log.close()


def test_a_log_at_its_limit_takes_nothing_more(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, replace_limits(log_bytes=len(RECORD.line()) + 10))
    log.append([RECORD])
    with pytest.raises(CannotRecord, match="reached its limit of"):
        log.append(some(1))
    assert read_day(tmp_path / "2026-02-02")[0] == [RECORD]


def test_a_day_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "2026-02-02").write_text("not a folder")
    with pytest.raises(Refusal, match="log of 2026-02-02 cannot be read"):
        read_day(tmp_path / "2026-02-02")


def test_a_log_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "2026-02-02").write_text("not a folder")
    with pytest.raises(CannotRecord, match="cannot be written: "):
        PredictionLog(tmp_path).append([RECORD])


def test_a_rehearsed_day_is_that_day(tmp_path: Path) -> None:
    assert clock("2026-02-02")().isoformat().startswith("2026-02-02T")
    assert clock()().tzinfo is not None


def test_a_file_that_says_the_day_is_read_anew_for_every_answer(tmp_path: Path) -> None:
    said = tmp_path / "day"
    said.write_text("2026-02-02\n")
    now = clock(str(said))
    assert now().isoformat().startswith("2026-02-02T")
    said.write_text("2026-02-03\n")
    assert now().isoformat().startswith("2026-02-03T")
    assert now().tzinfo is not None
