"""A box whose releases and log rest in a bucket: it follows, it ships, and answers while the store is away."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bento.places import Places
from loan_assets.books import LoanBook
from loan_assets.bucket import Bucket
from loan_assets.mirror import discard
from loan_assets.refusal import Refusal
from loan_assets.resources.prediction_logs import PredictionLogs
from loan_assets.resources.release_store import ReleaseStore
from loan_assets.sealed import MANIFEST
from loan_assets.standing import Mode
from loan_assets_tests.bento.conftest import DAY, Box
from loan_assets_tests.conftest import Home, second_version
from loan_assets_tests.services import free_port


@pytest.fixture
def platform(ran: Home, bucket: str, tmp_path: Path) -> ReleaseStore:
    """The release store of a platform on another machine: versions 1 and 2 in the bucket, 1 in force."""
    local = second_version(ran, tmp_path / "local")
    shared = ReleaseStore(root=str(tmp_path / "platform"), bucket=f"{bucket}/releases")
    for version in (1, 2):
        _, folder = local.shelf_of(version)
        listed = shutil.ignore_patterns(MANIFEST)
        shared.publish(version, partial(shutil.copytree, folder, ignore=listed, dirs_exist_ok=True))
    shared.crown(1, shared.shelf_of(1)[0])
    return shared


@pytest.fixture
def abroad(places: Places, bucket: str, tmp_path: Path) -> Places:
    """The places of a box that has nothing but its spool and the bucket."""
    return replace(
        places,
        releases=tmp_path / "spool" / "releases",
        releases_bucket=f"{bucket}/releases",
        predictions=tmp_path / "spool" / "predictions",
        predictions_bucket=f"{bucket}/predictions",
    )


@pytest.fixture
def opened(abroad: Places) -> Iterator[Callable[[], Box]]:
    boxes: list[Box] = []

    def box() -> Box:
        boxes.append(Box(abroad))
        return boxes[-1]

    yield box
    for one in boxes:
        one.close()


def look(box: Box) -> None:
    box.application.upkeep.exchange.follow()
    box.application.upkeep.look()


def asked(box: Box, application: dict[str, Any]) -> Any:
    return box.post("/score", {"applications": [application]}).body


def test_an_empty_box_answers_with_the_bucket_s_champion_and_follows_it(
    platform: ReleaseStore, opened: Callable[[], Box], good: dict[str, Any]
) -> None:
    box = opened()
    said = asked(box, good)
    assert (said["model_version"], said["release_source"]) == (1, "store")
    digest = platform.challenge(2, Mode.SHADOW).digest
    look(box)
    assert box.ask("GET", "/standing").body["challenger"]["model_version"] == 2
    platform.crown(2, digest)
    look(box)
    assert asked(box, good)["model_version"] == 2
    platform.crown(1, platform.shelf_of(1)[0])
    look(box)
    assert asked(box, good)["model_version"] == 1


def test_what_was_answered_is_read_by_the_platform(
    platform: ReleaseStore, opened: Callable[[], Box], good: dict[str, Any], bucket: str, book: LoanBook, tmp_path: Path
) -> None:
    box, logs = opened(), PredictionLogs(folder=str(tmp_path / "read"), bucket=f"{bucket}/predictions")
    answers = [asked(box, good)["request_id"] for _ in range(3)]
    box.application.upkeep.exchange.ship()
    more = asked(box, good)["request_id"]
    assert logs.read(DAY, book)[0]["request_id"].tolist() == answers
    box.application.upkeep.exchange.ship()
    frame, damages = logs.read(DAY, book)
    assert (frame["request_id"].tolist(), damages) == ([*answers, more], ())


def test_while_the_store_is_away_the_last_champion_answers_and_nothing_answered_is_lost(
    platform: ReleaseStore,
    opened: Callable[[], Box],
    good: dict[str, Any],
    bucket: str,
    book: LoanBook,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    platform.crown(2, platform.shelf_of(2)[0])
    opened().ask("GET", "/standing")
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
        began = time.monotonic()
        late = opened()
        assert time.monotonic() - began < 15
        said = asked(late, good)
        assert (said["model_version"], said["release_source"]) == (2, "store")
        assert b'loan_bucket_away{what="releases"} 1' in late.ask("GET", "/metrics").content
        late.application.upkeep.look()
    last = opened()
    last.application.upkeep.exchange.ship()
    frame, _ = PredictionLogs(folder=str(tmp_path / "read"), bucket=f"{bucket}/predictions").read(DAY, book)
    assert frame["request_id"].tolist() == [said["request_id"]]


def test_a_damaged_copy_is_brought_anew_when_a_box_is_started(
    platform: ReleaseStore, opened: Callable[[], Box], abroad: Places, good: dict[str, Any]
) -> None:
    opened()
    digest, _ = platform.shelf_of(1)
    assert abroad.releases is not None
    copy = abroad.releases / "v1" / digest[:16] / "release.json"
    for damage in (lambda: copy.write_bytes(b"{}"), copy.unlink):
        damage()
        said = asked(opened(), good)
        assert (said["model_version"], said["release_source"]) == (1, "store")


def test_a_challenger_that_cannot_be_had_keeps_nobody_from_following_the_champion(
    platform: ReleaseStore, opened: Callable[[], Box], good: dict[str, Any], bucket: str
) -> None:
    platform.crown(2, platform.shelf_of(2)[0])
    box = opened()
    assert asked(box, good)["model_version"] == 2
    first, _ = platform.shelf_of(1)
    platform.crown(1, first)
    digest = platform.challenge(2, Mode.SHADOW).digest
    other = opened()
    Bucket(f"{bucket}/releases").write(f"v2/{digest[:16]}/release.json", b"{}")
    discard(Path(other.places.releases or "") / "v2" / digest[:16])
    for one in (box, other, opened()):
        with contextlib.suppress(Refusal):
            one.application.upkeep.exchange.follow()
        one.application.upkeep.look()
        assert asked(one, good)["model_version"] == 1


def test_a_release_that_was_altered_in_the_bucket_is_refused_and_what_answered_goes_on(
    platform: ReleaseStore, opened: Callable[[], Box], good: dict[str, Any], bucket: str
) -> None:
    box = opened()
    digest, _ = platform.shelf_of(2)
    platform.crown(2, digest)
    Bucket(f"{bucket}/releases").write(f"v2/{digest[:16]}/release.json", b"{}")
    with pytest.raises(Refusal, match="corrupt"):
        look(box)
    box.application.upkeep.look()
    assert asked(box, good)["model_version"] == 1
    assert asked(opened(), good)["model_version"] == 1
