"""The pointer: champion and challenger in one step, and a canary that always answers the same clients."""

from dataclasses import replace
from pathlib import Path

import pytest

from loan_assets.refusal import Refusal
from loan_assets.release import write_release
from loan_assets.resources.release_store import ReleaseStore
from loan_assets.standing import Challenger, Mode, is_canary
from loan_assets_tests.conftest import Home, second_version

CANARY = Challenger(version=2, digest="b" * 64, path="v2", mode=Mode.CANARY, share=0.1)


@pytest.fixture
def store(ran: Home, tmp_path: Path) -> ReleaseStore:
    """A store with version 1 in force and version 2 released."""
    return second_version(ran, tmp_path)


def test_a_share_of_the_clients_falls_to_the_canary_and_always_the_same(store: ReleaseStore) -> None:
    clients = [str(number) for number in range(30_000)]
    taken = {client for client in clients if is_canary(client, CANARY)}
    # Four standard deviations of a binomial count at a tenth of 30,000.
    assert abs(len(taken) - 3_000) <= 4 * (30_000 * 0.1 * 0.9) ** 0.5
    assert taken == {client for client in clients if is_canary(client, CANARY)}


def test_a_larger_share_keeps_the_clients_of_the_smaller() -> None:
    wider = Challenger(version=2, digest="b" * 64, path="v2", mode=Mode.CANARY, share=0.3)
    clients = [str(number) for number in range(5_000)]
    assert all(is_canary(client, wider) for client in clients if is_canary(client, CANARY))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 2_000)])
def test_no_share_is_nobody_and_the_whole_share_is_everybody(share: float, expected: int) -> None:
    terms = Challenger(version=2, digest="b" * 64, path="v2", mode=Mode.CANARY, share=share)
    assert sum(is_canary(str(number), terms) for number in range(2_000)) == expected


def test_a_shadow_answers_nobody() -> None:
    shadow = Challenger(version=2, digest="b" * 64, path="v2", mode=Mode.SHADOW, share=1.0)
    assert not any(is_canary(str(number), shadow) for number in range(100))


def test_a_challenger_stands_beside_the_champion_until_it_is_crowned_or_dismissed(store: ReleaseStore) -> None:
    champion = store.champion()
    challenger = store.challenge(2, Mode.CANARY, 0.25)
    assert (store.standings().champion, store.standings().challenger) == (champion, challenger)
    store.crown(champion.version, champion.digest)
    assert store.standings().challenger == challenger
    store.dismiss()
    assert store.standings().challenger is None
    store.challenge(2, Mode.SHADOW)
    store.crown(2, challenger.digest)
    assert (store.champion().version, store.standings().challenger) == (2, None)


def test_what_cannot_stand_is_refused(store: ReleaseStore) -> None:
    with pytest.raises(Refusal, match="Version 9 has no release"):
        store.challenge(9, Mode.SHADOW)
    with pytest.raises(Refusal, match="Version 1 is the champion"):
        store.challenge(1, Mode.SHADOW)
    with pytest.raises(Refusal, match=r"share of 1\.5"):
        store.challenge(2, Mode.CANARY, 1.5)


def test_what_stands_stays_on_its_shelf_however_often_its_version_is_released_again(store: ReleaseStore) -> None:
    champion = store.champion()
    release = store.champion_release()
    onnx = (Path(store.root) / champion.path / "model.onnx").read_bytes()
    for number in range(4):
        facts = replace(release.facts, evidence={"attempt": float(number)})
        store.publish(1, lambda folder, facts=facts: write_release(folder, facts, release.trees, onnx))  # type: ignore[misc]
    assert store.champion() == champion
    assert store.champion_release().digest == champion.digest
    assert len(list((Path(store.root) / "v1").glob("[0-9a-f]*"))) == 3
