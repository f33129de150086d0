"""Broken feeds are found on small days, and no honest change is taken for one."""

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import pytest

from loan_assets.books import LoanBook, Role
from loan_assets.credit.batch_memory import BatchMemory
from loan_assets.credit.norms import Norms, norms_of
from loan_assets.credit.quality import INSUFFICIENT, OK, QUARANTINED, BatchQuality, judge_batch, remember
from loan_assets.credit.scenarios import sudden_shift
from loan_assets.policy import POLICY

QUALITY = POLICY.quality
SMALL = 100
BILLS, PAYMENTS, STATUSES = (
    [f"{measure}_{month}" for month in range(1, 7)] for measure in ("bill_amount", "payment_amount", "pay_status")
)
AMOUNTS = ["credit_limit", *BILLS, *PAYMENTS]
PROTECTED = ["sex", "marital_status", "age"]

Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture(scope="module")
def norms(received: pd.DataFrame, book: LoanBook) -> Norms:
    return norms_of(received.sample(24_000, random_state=5), book, QUALITY)


@pytest.fixture(scope="module")
def unseen(received: pd.DataFrame) -> pd.DataFrame:
    return received.drop(received.sample(24_000, random_state=5).index).drop(columns="defaulted")


def day(clients: pd.DataFrame, rows: int, seed: int, name: str = "a") -> pd.DataFrame:
    drawn = clients.sample(rows, random_state=seed, replace=len(clients) < rows).reset_index(drop=True)
    ids = [f"{name}-{seed}-{row}" for row in range(rows)]
    return drawn.assign(request_id=ids, event_timestamp=pd.Timestamp("2026-02-02 09:00", tz="UTC"))


def judged(batch: pd.DataFrame | None, norms: Norms, book: LoanBook, usual: int = SMALL) -> BatchQuality:
    return judge_batch(batch, norms, book, [usual] * 5, QUALITY)


def times(factor: float, *columns: str) -> Change:
    return lambda batch: batch.assign(**{column: batch[column] * factor for column in columns})


def filled(value: Any, *columns: str) -> Change:
    return lambda batch: batch.assign(**dict.fromkeys(columns, value))


def in_part(column: str, value: Any, share: float) -> Change:
    def change(batch: pd.DataFrame) -> pd.DataFrame:
        values = batch[column].astype(object if isinstance(value, str) else "float64")
        return batch.assign(**{column: values.where(np.arange(len(batch)) >= share * len(batch), value)})

    return change


def exchanged(*pairs: tuple[str, str]) -> Change:
    places = dict(chain.from_iterable(((one, other), (other, one)) for one, other in pairs))
    return lambda batch: batch.assign(**{to: batch[source].to_numpy() for to, source in places.items()})


def permuted(column: str) -> Change:
    order = np.random.default_rng(3).permutation
    return lambda batch: batch.assign(**{column: batch[column].to_numpy()[order(len(batch))]})


def one_to_the_right(batch: pd.DataFrame) -> pd.DataFrame:
    names = [name for name in batch.columns if name not in ("client_id", "request_id", "event_timestamp")]
    return batch.assign(**{to: batch[source] for to, source in zip(names, [names[-1], *names[:-1]], strict=True)})


FAULTS: dict[str, Change] = {
    **{f"{column} is null": filled(np.nan, column) for column in ("credit_limit", "sex", "pay_status_3")},
    **{f"a fifth of {column} is null": in_part(column, np.nan, 0.2) for column in ("education", "bill_amount_6")},
    **{f"{column} is constant": filled(1, column) for column in ("credit_limit", "education", "pay_status_1")},
    "payments are nothing": filled(0, "payment_amount_2"),
    **{
        f"{'/'.join(columns[:2])} times {factor:.3g}": times(factor, *columns)
        for factor in (1_000, 100, 30, 1 / 30, 1 / 100, 1 / 1_000)
        for columns in (["credit_limit"], ["bill_amount_1"], ["payment_amount_4"], BILLS, PAYMENTS, AMOUNTS)
    },
    **{f"{column} changed sign": times(-1, column) for column in ("credit_limit", "bill_amount_2", "pay_status_2")},
    "bills changed sign": times(-1, *BILLS),
    "limit and bill": exchanged(("credit_limit", "bill_amount_1")),
    "payment and bill": exchanged(("payment_amount_1", "bill_amount_2")),
    "payments and bills": exchanged(*zip(PAYMENTS, BILLS, strict=True)),
    "sex and education": exchanged(("sex", "education")),
    "age and limit": exchanged(("age", "credit_limit")),
    **{f"{column} permuted": permuted(column) for column in ("bill_amount_3", "payment_amount_2", "pay_status_5")},
    "columns moved by one": one_to_the_right,
    "unseen code": in_part("education", 9, 0.1),
    "out of range": in_part("age", 400, 0.1),
    "text": in_part("credit_limit", "n/a", 0.1),
    "numbers as text": lambda batch: batch.assign(credit_limit=batch["credit_limit"].astype(str)),
    "infinite": in_part("bill_amount_1", np.inf, 0.1),
    "lost column": lambda batch: batch.drop(columns="bill_amount_4"),
    "lost ids": lambda batch: batch.drop(columns="request_id"),
    "one id": lambda batch: batch.assign(request_id="a"),
    "rows twice": lambda batch: pd.concat([batch, batch.assign(request_id=batch["request_id"] + "b")]),
    "a tenth": lambda batch: batch.head(len(batch) // 10),
    "empty": lambda batch: batch.head(0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_feed_is_found_on_a_hundred_rows(
    fault: str, unseen: pd.DataFrame, norms: Norms, book: LoanBook
) -> None:
    for seed in range(3):
        verdict = judged(FAULTS[fault](day(unseen, SMALL, seed)), norms, book)
        assert verdict.status == QUARANTINED
        assert verdict.reasons


def everybody_late(batch: pd.DataFrame) -> pd.DataFrame:
    return batch.assign(**{column: batch[column].clip(lower=1) for column in STATUSES})


def collapsed(batch: pd.DataFrame) -> pd.DataFrame:
    return batch.assign(**{column: np.where(batch[column] > 0, 2, 0) for column in STATUSES})


def one_worse(share: float) -> Change:
    def change(batch: pd.DataFrame) -> pd.DataFrame:
        worse = np.random.default_rng(4).random(len(batch)) < share
        return batch.assign(**{column: np.minimum(batch[column] + worse, 8) for column in STATUSES})

    return change


def blurred(batch: pd.DataFrame) -> pd.DataFrame:
    factor = np.random.default_rng(6).uniform
    return batch.assign(**{column: (batch[column] * factor(0.7, 1.4, len(batch))).round() for column in AMOUNTS})


def a_month_older(*families: list[str]) -> Change:
    places = [pair for family in families for pair in zip(family[1:], family[:-1], strict=True)]
    return lambda batch: batch.assign(**{to: batch[source].to_numpy() for to, source in places})


def what_is_left(batch: pd.DataFrame) -> pd.DataFrame:
    return batch.assign(**{column: batch["credit_limit"] - batch[column] for column in BILLS})


def minimum_paid(batch: pd.DataFrame) -> pd.DataFrame:
    paid = zip(PAYMENTS, BILLS, strict=True)
    return batch.assign(**{payment: (batch[bill].clip(lower=0) * 0.05).round() for payment, bill in paid})


def both(first: Change, then: Change) -> Change:
    return lambda batch: then(first(batch))


def for_half(change: Change) -> Change:
    def mixed(batch: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([batch[::2], change(batch)[1::2]]).sort_index()

    return mixed


HONEST: dict[str, Change] = {
    "nothing": lambda batch: batch,
    "twice the amounts": times(2, *AMOUNTS),
    "half the amounts": times(0.5, *AMOUNTS),
    "twice the debts": times(2, *BILLS),
    "everybody late": everybody_late,
    "codes collapsed": collapsed,
    **{f"all amounts times {factor}": times(factor, *AMOUNTS) for factor in (1.3, 1.6, 2.5)},
    "statuses one worse": one_worse(1.0),
    "a third one worse": one_worse(0.33),
    "statuses 0 to 2": lambda batch: batch.assign(**{column: batch[column].clip(0, 2) for column in STATUSES}),
    "blurred": both(blurred, one_worse(0.33)),
    "everything a month older": a_month_older(BILLS, PAYMENTS, STATUSES),
    "bills a month older": a_month_older(BILLS),
    "payments a month newer": a_month_older(PAYMENTS[::-1]),
    "what is left of the limit": what_is_left,
    "a new core system": both(what_is_left, one_worse(1.0)),
    "a new core system in inflation": both(times(2.5, *AMOUNTS), both(what_is_left, blurred)),
    "half the branches migrated": for_half(both(what_is_left, one_worse(1.0))),
    "half small clients": for_half(times(0.4, *AMOUNTS)),
    "only the minimum paid": minimum_paid,
    "half the volume": lambda batch: batch.head(len(batch) // 2),
    "protected not sent": lambda batch: batch.drop(columns=PROTECTED),
    "protected empty": filled(np.nan, *PROTECTED),
}


@pytest.mark.parametrize("change", HONEST)
@pytest.mark.parametrize("rows", [SMALL, 250])
def test_an_honest_change_is_no_fault(
    change: str, rows: int, unseen: pd.DataFrame, norms: Norms, book: LoanBook
) -> None:
    for seed in range(8):
        assert judged(HONEST[change](day(unseen, rows, seed)), norms, book, rows).reasons == ()


def test_a_deep_recession_is_no_fault(unseen: pd.DataFrame, norms: Norms, book: LoanBook) -> None:
    for seed in range(8):
        assert judged(sudden_shift(day(unseen, SMALL, seed), book), norms, book).reasons == ()


@pytest.mark.parametrize("end", ["lowest", "highest"])
def test_a_third_of_the_clients_by_any_number_is_a_segment_and_no_fault(
    end: str, received: pd.DataFrame, norms: Norms, book: LoanBook
) -> None:
    for column in book.with_role(Role.FEATURE, Role.PROTECTED):
        ranks = received[column.name].rank(method="first", pct=True)
        third = received[ranks <= 1 / 3] if end == "lowest" else received[ranks > 2 / 3]
        for seed in range(2):
            assert judged(day(third, 250, seed), norms, book, 250).reasons == (), column.name


def test_quiet_days_are_healthy_to_the_last_row(unseen: pd.DataFrame, norms: Norms, book: LoanBook) -> None:
    for seed in range(100):
        verdict = judged(day(unseen, SMALL, seed), norms, book)
        assert (verdict.status, verdict.reasons, bool(verdict.healthy.all())) == (OK, (), True)


def test_a_few_bad_rows_are_set_aside_and_the_rest_counts(unseen: pd.DataFrame, norms: Norms, book: LoanBook) -> None:
    verdict = judged(in_part("education", 9, 0.01)(day(unseen, 300, 0)), norms, book, 300)
    assert (verdict.status, int((~verdict.healthy).sum())) == (OK, 3)
    assert verdict.set_aside == ("education: has a code outside the book (3 rows)",)


def test_a_reason_names_column_rule_and_count(unseen: pd.DataFrame, norms: Norms, book: LoanBook) -> None:
    verdict = judged(in_part("credit_limit", "Jane Doe", 0.2)(day(unseen, SMALL, 0)), norms, book)
    assert verdict.reasons == ("credit_limit: is not a number (20 rows)",)


def test_one_protected_column_lost_is_a_fault_where_all_lost_is_a_right(
    unseen: pd.DataFrame, norms: Norms, book: LoanBook
) -> None:
    batch = day(unseen, SMALL, 0)
    assert judged(batch.drop(columns="age"), norms, book).reasons == ("age: is missing (100 rows)",)
    assert judged(batch.drop(columns=PROTECTED), norms, book).left_out == ("sex", "marital_status", "age")


def test_a_client_may_keep_the_protected_attributes_to_themselves(
    unseen: pd.DataFrame, norms: Norms, book: LoanBook
) -> None:
    batch = day(unseen, SMALL, 0).astype(dict.fromkeys(PROTECTED, "float64"))
    batch.loc[:30, PROTECTED] = np.nan
    verdict = judged(batch, norms, book)
    assert (verdict.status, bool(verdict.healthy.all())) == (OK, True)


def test_too_few_rows_are_not_judged_and_no_file_is_no_fault(
    unseen: pd.DataFrame, norms: Norms, book: LoanBook
) -> None:
    few = judge_batch(day(unseen, 30, 0), norms, book, [], QUALITY)
    assert (few.status, few.reasons) == (INSUFFICIENT, ("(all): too few healthy rows to judge (30 rows)",))
    assert judged(None, norms, book).status == INSUFFICIENT


def test_ten_times_the_usual_rows_are_a_fault(unseen: pd.DataFrame, norms: Norms, book: LoanBook) -> None:
    assert judged(day(unseen, 1_000, 0), norms, book).reasons == (
        "(all): far more rows than the usual 100 (1,000 rows)",
    )


@pytest.mark.parametrize("rows", [SMALL, 1_500])
def test_a_file_sent_again_is_known_under_new_ids_too(
    rows: int, unseen: pd.DataFrame, norms: Norms, book: LoanBook
) -> None:
    sent = day(unseen, rows, 1)
    memory = remember(BatchMemory(), "2026-02-02", sent, norms, book, QUALITY)
    memory = remember(memory, "2026-02-03", day(unseen, rows, 2), norms, book, QUALITY)
    memory = BatchMemory.from_json(memory.to_json())
    for again in (sent, sent.assign(request_id="new-" + sent["request_id"]), sent.sample(frac=1.0, random_state=0)):
        verdict = judge_batch(again, norms, book, [rows] * 3, QUALITY, memory)
        assert any("came again" in reason for reason in verdict.reasons)
    assert judge_batch(day(unseen, rows, 3), norms, book, [rows] * 3, QUALITY, memory).status == OK


def test_request_ids_of_an_earlier_day_are_not_taken_again(unseen: pd.DataFrame, norms: Norms, book: LoanBook) -> None:
    sent, fresh = day(unseen, SMALL, 1), day(unseen, SMALL, 2)
    memory = remember(BatchMemory(), "2026-02-02", sent, norms, book, QUALITY)
    few = fresh.assign(request_id=fresh["request_id"].where(fresh.index >= 3, sent["request_id"]))
    verdict = judge_batch(few, norms, book, [SMALL] * 3, QUALITY, memory)
    assert (verdict.status, int((~verdict.healthy).sum())) == (OK, 3)
    many = fresh.assign(request_id=fresh["request_id"].where(fresh.index >= 30, sent["request_id"]))
    verdict = judge_batch(many, norms, book, [SMALL] * 3, QUALITY, memory)
    assert verdict.reasons == ("request_id: is known from an earlier day (30 rows)",)


def test_the_memory_stays_bounded_and_a_day_told_again_replaces_itself(
    unseen: pd.DataFrame, norms: Norms, book: LoanBook
) -> None:
    limits = replace(QUALITY, remembered_days=3, remembered_rows=50)
    memory = BatchMemory()
    for number in (1, 2, 3, 4, 4):
        memory = remember(memory, f"2026-02-0{number}", day(unseen, SMALL, number), norms, book, limits)
    assert [known.day for known in memory.days] == ["2026-02-02", "2026-02-03", "2026-02-04"]
    assert {len(known.requests) for known in memory.days} == {50}


CHANGED_PLACES = [("bill_amount_2", "payment_amount_1"), ("pay_status_3", "bill_amount_4"), ("age", "bill_amount_1")]


def test_a_broken_column_is_found_in_a_world_that_has_changed(
    unseen: pd.DataFrame, norms: Norms, book: LoanBook
) -> None:
    world = both(what_is_left, one_worse(1.0))
    faults = [permuted(column) for column in ("credit_limit", *BILLS, *PAYMENTS, *STATUSES)]
    faults += [exchanged(pair) for pair in CHANGED_PLACES] + [exchanged(*zip(PAYMENTS, STATUSES, strict=True))]
    for seed, fault in enumerate(faults):
        assert judged(fault(world(day(unseen, 250, seed))), norms, book, 250).status == QUARANTINED


@pytest.mark.parametrize("family", [BILLS, PAYMENTS, STATUSES], ids=lambda family: family[0][:-2])
def test_two_months_that_changed_places_are_found_and_named(
    family: list[str], unseen: pd.DataFrame, norms: Norms, book: LoanBook
) -> None:
    for seed in range(4):
        batch = exchanged((family[seed], family[seed + 1]))(day(unseen, 1_000, seed))
        assert judged(batch, norms, book, 1_000).reasons == (
            f"{family[seed]}: has changed places with {family[seed + 1]} (1,000 rows)",
        )


def statuses_of_volume(volumes: list[int], unseen: pd.DataFrame, norms: Norms, book: LoanBook) -> list[str]:
    earlier, statuses = [SMALL] * 10, []
    for seed, rows in enumerate(volumes):
        verdict = judge_batch(day(unseen, rows, seed), norms, book, earlier, QUALITY)
        earlier = [*earlier, rows] if verdict.shows_volume else earlier
        statuses.append(verdict.status)
    return statuses


def test_a_volume_is_usual_after_five_days_that_agree_on_it_and_the_old_one_stays_so(
    unseen: pd.DataFrame, norms: Norms, book: LoanBook
) -> None:
    there, back = [1_000, 900, 600, 1_100, 1_000, 950, 1_000], [100, 110]
    statuses = statuses_of_volume(there + back, unseen, norms, book)
    assert statuses == [QUARANTINED] * 5 + [OK] * 4


def test_volumes_that_do_not_agree_are_never_usual(unseen: pd.DataFrame, norms: Norms, book: LoanBook) -> None:
    assert statuses_of_volume([1_000, 3_000] * 4, unseen, norms, book) == [QUARANTINED] * 8


def test_a_day_with_another_fault_says_nothing_of_the_volume(
    unseen: pd.DataFrame, norms: Norms, book: LoanBook
) -> None:
    assert not judged(filled(np.nan, "credit_limit")(day(unseen, 1_000, 0)), norms, book).shows_volume
    assert judged(day(unseen, 1_000, 0), norms, book).shows_volume
