"""A policy from a file changes what it names and nothing else, and says which field it does not understand."""

from dataclasses import replace
from pathlib import Path

import pytest

from loan_assets.policy import POLICY
from loan_assets.policy_file import policy_of, the_policy
from loan_assets.refusal import Refusal


def written(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text)
    return path


def refused(folder: Path, text: str) -> str:
    with pytest.raises(Refusal) as refusal:
        policy_of(written(folder, text))
    assert "policy.yaml" in refusal.value.cause
    return refusal.value.cause


def test_what_a_file_names_is_set_and_the_rest_stays(tmp_path: Path) -> None:
    policy = policy_of(written(tmp_path, "vigilance:\n  consecutive: 4\nsuccession:\n  enough_outcomes: 900\n"))
    vigilance = replace(POLICY.vigilance, consecutive=4)
    assert policy == replace(POLICY, vigilance=vigilance, succession=replace(POLICY.succession, enough_outcomes=900))


def test_an_empty_file_is_the_policy_as_it_stands(tmp_path: Path) -> None:
    assert policy_of(written(tmp_path, "# nothing\n")) == POLICY


def test_a_whole_number_will_do_for_a_fraction(tmp_path: Path) -> None:
    set_otherwise = policy_of(written(tmp_path, "succession:\n  growth: 3\n")).succession.growth
    assert (set_otherwise, type(set_otherwise)) == (3.0, float)


def test_a_pair_is_a_list_of_two(tmp_path: Path) -> None:
    assert policy_of(written(tmp_path, "quality:\n  lost_errors: [1, 3.5]\n")).quality.lost_errors == (1.0, 3.5)
    assert "takes 2 values" in refused(tmp_path, "quality:\n  lost_errors: [1]\n")


def test_a_misspelt_field_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    said = refused(tmp_path, "vigilance:\n  consecutiv: 4\n")
    assert "'vigilance.consecutiv'" in said
    assert "'consecutive'" in said


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("vigilance:\n  consecutive: three\n", "vigilance.consecutive"),
        ("vigilance:\n  consecutive: 3.5\n", "vigilance.consecutive"),
        ("vigilance:\n  consecutive: true\n", "vigilance.consecutive"),
        ("vigilance:\n  retrain_above: .nan\n", "vigilance.retrain_above"),
        ("vigilance: 3\n", "vigilance"),
        ("- vigilance\n", "the file"),
        ("false\n", "the file"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_its_field(tmp_path: Path, text: str, field: str) -> None:
    assert field in refused(tmp_path, text)


def test_what_is_no_yaml_or_not_there_is_refused(tmp_path: Path) -> None:
    assert "as YAML" in refused(tmp_path, "vigilance: [1, 2\n")
    (tmp_path / "policy.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Refusal, match="as YAML"):
        policy_of(tmp_path / "policy.yaml")
    with pytest.raises(Refusal, match="is not there"):
        policy_of(tmp_path / "none.yaml")


def test_a_fraction_may_be_written_with_an_exponent(tmp_path: Path) -> None:
    policy = policy_of(written(tmp_path, "label_quality:\n  rate_chance: 5e-3\n  rate_chance_together: 1E-2\n"))
    assert (policy.label_quality.rate_chance, policy.label_quality.rate_chance_together) == (0.005, 0.01)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("succession:\n  budget: 0\n", "succession.budget takes a whole number of at least 1"),
        ("vigilance:\n  consecutive: -3\n", "vigilance.consecutive takes a whole number of at least 1"),
        ("vigilance:\n  retrain_above: 1.2\n", "vigilance.retrain_above takes a share between 0 and 1"),
        ("vigilance:\n  quantile: 97\n", "vigilance.quantile takes a share between 0 and 1"),
        ("succession:\n  held_out: 3\n", "succession.held_out takes a share between 0 and 1"),
        ("succession:\n  floor_auc: 55\n", "succession.floor_auc takes a share between 0 and 1"),
        ("succession:\n  hopeless_z: 2\n", "succession.hopeless_z takes a negative number"),
        ("succession:\n  first_gain: -0.1\n", "succession.first_gain takes a positive number"),
        ("succession:\n  growth: .inf\n", "succession.growth is not a number"),
    ],
)
def test_a_value_that_a_field_cannot_mean_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_an_installation_names_its_policy_and_not_that_of_the_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    the_policy.cache_clear()
    monkeypatch.setenv("LOAN_POLICY", " ")
    assert the_policy() is POLICY
    the_policy.cache_clear()
    monkeypatch.setenv("LOAN_POLICY", str(written(tmp_path, "promotion:\n  by_steps: true\n")))
    assert the_policy() == replace(POLICY, promotion=replace(POLICY.promotion, by_steps=True))
    the_policy.cache_clear()
    written(tmp_path, "endpoint:\n  most_rows: 10\n")
    with pytest.raises(Refusal, match="endpoint travels with the Bento"):
        the_policy()
    the_policy.cache_clear()
