"""Whether an arrival of outcomes is fit to be learned from.

Here: which labels of an arrival may be taken over. Not here: what is remembered of earlier ones and what they show
together (`arrivals`, `base_rates`), or how well the champion does on them (`judging`): a model may fail, and a base
rate move, without a fault in the feed. Where too few labels have come to tell, an arrival waits for the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loan_assets.credit.arrivals import (
    DAY,
    SCORE,
    Arrival,
    LabelMemory,
    are_released,
    arrival_of,
    errors_of,
    goes_with_nothing,
    is_informative,
    level,
    usual_effect,
)
from loan_assets.credit.base_rates import judge_rate
from loan_assets.credit.conformance import Breach
from loan_assets.credit.quality import OK, QUARANTINED, REQUEST, WHOLE_TABLE
from loan_assets.policy import LabelQuality

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NONE", "OK", "QUARANTINED", "LabelMemory", "LabelVerdict", "judge_labels"]

NONE = "none"
LABEL, AT = "label", "label_timestamp"

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelVerdict:
    """The verdict on one arrival.

    `rows` is how many labels it is about: those to take over, or those that came where none is. `labels` are those to
    take over, one row a request (request_id, label, label_timestamp), none of a quarantined arrival; a request that has
    a label already takes the one with the later timestamp. `held` are those of an arrival that is held, as shuffled or
    for its base rate, and `released` names the days of earlier ones that turn out to be sound: what was held of them is
    to be taken over. `memory` is what to judge the next one with.
    """

    status: str
    rows: int
    reasons: tuple[str, ...]
    set_aside: tuple[str, ...]
    labels: pd.DataFrame
    released: tuple[str, ...]
    memory: LabelMemory
    held: pd.DataFrame | None = None


def judge_labels(
    arrived: pd.DataFrame | None, asked: pd.DataFrame, memory: LabelMemory, labels: LabelQuality, day: str
) -> LabelVerdict:
    """Judge one arrival day.

    Args:
        arrived: request_id, label, label_timestamp as received; None where no file came.
        asked: request_id, day and score of every known request, and any numeric columns about the applicant.
        day: the day of arrival, YYYY-MM-DD; no label is from after it.
    """
    nothing = _table(())
    if arrived is None or len(arrived) == 0:
        return _verdict(NONE, nothing, memory)
    missing = [name for name in (REQUEST, LABEL, AT) if name not in arrived.columns]
    if missing:
        reasons = [Breach(column=name, rule="is missing", rows=len(arrived)) for name in missing]
        return _verdict(QUARANTINED, nothing, memory, reasons, rows=len(arrived))
    known = asked.drop_duplicates(REQUEST, keep="last").set_index(REQUEST)
    clean, unfit = _cleaned(arrived, known, day)
    gross = [breach for breach in unfit if breach.rows > _allowed(breach, len(arrived), labels)]
    if gross:
        return _verdict(QUARANTINED, nothing, memory, gross, unfit, rows=len(arrived))
    return _judge_clean(_latest(_joined(_table(memory.waiting), clean)), unfit, known, memory, labels, day)


def _judge_clean(
    taken: pd.DataFrame,
    unfit: Sequence[Breach],
    known: pd.DataFrame,
    memory: LabelMemory,
    labels: LabelQuality,
    day: str,
) -> LabelVerdict:
    """Judge what can be read of an arrival, and of those that waited for it, as a whole."""
    nothing, about = taken.iloc[:0], known.loc[taken[REQUEST]]
    label = taken[LABEL].to_numpy("int64")
    arrival = arrival_of(day, label, about)
    expected = np.clip(about[SCORE].to_numpy("float64") * level(memory.healthy), 1e-6, 1 - 1e-6)
    if len(taken) < labels.smallest_arrival or _may_be_chance(label, expected, labels):
        waits = replace(memory, waiting=_rows(taken))
        few = [Breach(column=WHOLE_TABLE, rule="too few labels to judge, held for the next arrival", rows=len(taken))]
        return _verdict(NONE, nothing, waits, few, unfit, rows=len(taken))

    def held(rule: str, after: LabelMemory) -> LabelVerdict:
        reasons = [Breach(column=LABEL, rule=rule, rows=len(taken))]
        verdict = _verdict(QUARANTINED, nothing, replace(after, waiting=()), reasons, unfit, rows=len(taken))
        return replace(verdict, held=taken)

    rate = judge_rate(arrival, memory, labels)
    if _is_flipped(label, expected, arrival, usual_effect(memory, labels), labels):
        flipped = [Breach(column=LABEL, rule=rule, rows=len(taken)) for rule in (rate.reason, "is flipped") if rule]
        return _verdict(QUARANTINED, nothing, memory, flipped, unfit, rows=len(taken))
    same = "is the same for all" if arrival.defaults in (0, arrival.labels) else ""
    if same or rate.reason:
        return held(same or rate.reason, replace(memory, leaning=rate.leaning))
    if goes_with_nothing(arrival, memory, labels):
        alike = (*memory.held, arrival)[-labels.remembered_arrivals :]
        return held("goes with nothing known about the applicants", replace(memory, held=alike))
    related = memory.held if are_released(memory, arrival, labels) else ()
    released = (*related, *rate.released)
    healthy = (*memory.healthy, *released, arrival)[-labels.remembered_arrivals :]
    after = LabelMemory(healthy=healthy, leaning=rate.leaning)
    if not related and not is_informative(labels, arrival):
        doubtful = (*memory.doubtful, arrival)[-labels.remembered_arrivals :]
        after = replace(after, doubtful=doubtful, held=memory.held)
    return _verdict(OK, taken, after, (), unfit, tuple(one.day for one in released), rows=len(taken))


def _verdict(
    status: str,
    taken: pd.DataFrame,
    memory: LabelMemory,
    reasons: Sequence[Breach] = (),
    set_aside: Sequence[Breach] = (),
    released: tuple[str, ...] = (),
    rows: int = 0,
) -> LabelVerdict:
    return LabelVerdict(
        status=status,
        rows=rows,
        reasons=tuple(str(reason) for reason in reasons),
        set_aside=tuple(str(breach) for breach in set_aside),
        labels=taken,
        released=released,
        memory=memory,
    )


def _allowed(breach: Breach, rows: int, labels: LabelQuality) -> float:
    share = labels.unknown_share if breach.rule == UNKNOWN else labels.unfit_share
    return max(labels.handful, share * rows)


UNKNOWN = "is of no known request"


def _cleaned(arrived: pd.DataFrame, known: pd.DataFrame, day: str) -> tuple[pd.DataFrame, tuple[Breach, ...]]:
    """The labels that can be read, one a request, and how many rows could not be taken, by rule."""
    import pandas as pd

    at = _instants(arrived[AT])
    label = arrived[LABEL].map(_as_label).to_numpy("float64")
    is_known = arrived[REQUEST].isin(known.index).to_numpy()
    asked_on = pd.to_datetime(arrived[REQUEST].map(known[DAY]), utc=True, errors="coerce")
    end = pd.Timestamp(day, tz="UTC") + pd.Timedelta(days=1)
    broken = {
        (REQUEST, UNKNOWN): ~is_known,
        (LABEL, "is neither 0 nor 1"): np.isnan(label),
        (AT, "is not a time"): at.isna().to_numpy(),
        (AT, "is before the request"): is_known & (at < asked_on.dt.normalize()).to_numpy(),
        (AT, "is after the day of arrival"): (at >= end).to_numpy(),
    }
    fit = ~np.any(list(broken.values()), axis=0)
    clean = pd.DataFrame({REQUEST: arrived[REQUEST].astype(str), LABEL: label, AT: at})[fit].astype({LABEL: "int64"})
    agree = clean.groupby([REQUEST, AT])[LABEL].transform("nunique") == 1
    broken[(LABEL, "contradicts another of the same time")] = ~agree.to_numpy()
    found = tuple(Breach(column=c, rule=r, rows=int(flags.sum())) for (c, r), flags in broken.items() if flags.any())
    latest = clean[AT] == clean.groupby(REQUEST)[AT].transform("max")
    return _latest(clean[latest & agree]), found


def _instants(times: pd.Series[Any]) -> pd.Series[Any]:
    """Instants and what is written as one, in UTC; anything else, a number too, is no time."""
    import pandas as pd

    if isinstance(times.dtype, pd.CategoricalDtype):
        times = times.astype(times.cat.categories.dtype)
    if times.dtype.kind == "M":
        return pd.to_datetime(times, utc=True)
    written = [value if isinstance(value, str | date) else None for value in times.astype(object)]
    return pd.to_datetime(
        pd.Series(written, index=times.index, dtype=object), utc=True, errors="coerce", format="ISO8601"
    )


def _as_label(value: object) -> float:
    """0 or 1 as a number; NaN for anything else, text included."""
    from numbers import Real

    return float(value) if isinstance(value, Real | np.bool_) and value in (0, 1) else float("nan")


def _latest(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values([AT, REQUEST], kind="stable").drop_duplicates(REQUEST, keep="last", ignore_index=True)


def _table(rows: Sequence[tuple[str, int, str]]) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame(list(rows), columns=[REQUEST, LABEL, AT])
    return table.astype({REQUEST: "object", LABEL: "int64"}).assign(
        **{AT: pd.to_datetime(table[AT], utc=True, format="ISO8601")}
    )


def _rows(table: pd.DataFrame) -> tuple[tuple[str, int, str], ...]:
    found = zip(table[REQUEST], table[LABEL], table[AT], strict=True)
    return tuple((str(request), int(label), at.isoformat()) for request, label, at in found)


def _joined(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([one, other], ignore_index=True) if len(one) else other


def _may_be_chance(label: NDArray[np.int64], expected: Numbers, labels: LabelQuality) -> bool:
    """Whether everybody has paid in so few labels that this may be chance."""
    chance = float(np.log1p(-labels.lowest_all_paid * expected).sum())
    return not label.any() and chance > np.log(labels.all_paid_chance)


def _is_flipped(
    label: NDArray[np.int64], expected: Numbers, arrival: Arrival, usual: float, labels: LabelQuality
) -> bool:
    """What no honest world does: one in which the score ranks wrongly ranks it weakly."""
    rows, rate = arrival.labels, arrival.defaults / arrival.labels
    if rate in (0, 1):
        return False
    flipped = float(np.log(np.where(label == 1, 1 - expected, expected)).sum())
    constant = rows * (rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    mirrored = labels.reversed_share * usual * arrival.weight**0.5
    is_reversed = errors_of(arrival)[0] < -max(labels.reversed_errors, mirrored)
    return bool(flipped > constant + labels.flipped_evidence or is_reversed)
