"""Whether an arrival of outcomes is fit to be learned from.

Here: which labels of an arrival may be taken over, and what is remembered of earlier ones. Not here: how well the
champion does on them (`judging`): a model may fail, and a base rate move, without a fault in the feed.

Outcomes shuffled among requests look, to the score alone, like a world in which it has become useless. They differ in
that they go with nothing else either, so every column known about the applicants is asked. Where too few labels have
come to tell, an arrival waits for the next; one that was held and whose like goes on to show a relation is released.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loan_assets.credit.conformance import Breach
from loan_assets.policy import LabelQuality

if TYPE_CHECKING:
    import pandas as pd

NONE, OK, QUARANTINED = "none", "ok", "quarantined"
REQUEST, LABEL, AT, DAY, SCORE = "request_id", "label", "label_timestamp", "day", "score"
WHOLE_TABLE = "(all)"

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What is remembered of one arrival.

    `expected` is the sum of the champion's scores. `pulls` are, for the score and each further column, the sums of the
    standard ranks of those who defaulted, `weight` the variance that these sums have by chance.
    """

    day: str
    labels: int
    defaults: int
    expected: float
    columns: tuple[str, ...]
    pulls: tuple[float, ...]
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelMemory:
    """What is known of earlier arrivals.

    `healthy` are the last ones taken over, `doubtful` those of them since one showed a relation by itself; `held` were
    refused because they go with nothing; `waiting` are labels too few to judge.
    """

    healthy: tuple[Arrival, ...] = ()
    doubtful: tuple[Arrival, ...] = ()
    held: tuple[Arrival, ...] = ()
    waiting: tuple[tuple[str, int, str], ...] = ()

    def to_json(self) -> str:
        """The memory as text, about 1 kB an arrival."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> LabelMemory:
        """Read what `to_json` wrote."""
        facts = json.loads(text)

        def arrivals(name: str) -> tuple[Arrival, ...]:
            return tuple(
                Arrival(**{**one, "columns": tuple(one["columns"]), "pulls": tuple(one["pulls"])})
                for one in facts[name]
            )

        waiting = tuple((str(request), int(label), str(at)) for request, label, at in facts["waiting"])
        return cls(healthy=arrivals("healthy"), doubtful=arrivals("doubtful"), held=arrivals("held"), waiting=waiting)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelVerdict:
    """The verdict on one arrival.

    `labels` are those to take over, one row a request (request_id, label, label_timestamp), none of a quarantined
    arrival; a request that has a label already takes the one with the later timestamp. `released` names the days of
    earlier arrivals that were held as shuffled and turn out not to be. `memory` is what to judge the next one with.
    """

    status: str
    rows: int
    reasons: tuple[str, ...]
    set_aside: tuple[str, ...]
    labels: pd.DataFrame
    released: tuple[str, ...]
    memory: LabelMemory


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
        return _verdict(QUARANTINED, nothing, memory, reasons)
    known = asked.drop_duplicates(REQUEST, keep="last").set_index(REQUEST)
    clean, unfit = _cleaned(arrived, known, day)
    gross = [breach for breach in unfit if breach.rows > _allowed(breach, len(arrived), labels)]
    if gross:
        return _verdict(QUARANTINED, nothing, memory, gross, unfit)
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
    arrival = _arrival(day, label, about)
    expected = np.clip(about[SCORE].to_numpy("float64") * _level(memory), 1e-6, 1 - 1e-6)
    if len(taken) < labels.smallest_arrival or _may_be_chance(label, expected, labels):
        waits = replace(memory, waiting=_rows(taken))
        few = [Breach(column=WHOLE_TABLE, rule="too few labels to judge, held for the next arrival", rows=len(taken))]
        return _verdict(NONE, nothing, waits, few, unfit)
    memory = replace(memory, waiting=())
    wrong = list(_wrong(label, expected, arrival, _usual_effect(memory, labels), labels))
    if wrong:
        return _verdict(QUARANTINED, nothing, memory, wrong, unfit)
    if _goes_with_nothing(arrival, memory, labels):
        held = (*memory.held, arrival)[-labels.remembered_arrivals :]
        alone = [Breach(column=LABEL, rule="goes with nothing known about the applicants", rows=len(taken))]
        return _verdict(QUARANTINED, nothing, replace(memory, held=held), alone, unfit)
    released = memory.held if _are_released(memory, arrival, labels) else ()
    healthy = (*memory.healthy, *released, arrival)[-labels.remembered_arrivals :]
    after = LabelMemory(healthy=healthy)
    if not released and not _is_informative(labels, arrival):
        doubtful = (*memory.doubtful, arrival)[-labels.remembered_arrivals :]
        after = replace(after, doubtful=doubtful, held=memory.held)
    return _verdict(OK, taken, after, (), unfit, tuple(one.day for one in released))


def _verdict(
    status: str,
    taken: pd.DataFrame,
    memory: LabelMemory,
    reasons: Sequence[Breach] = (),
    set_aside: Sequence[Breach] = (),
    released: tuple[str, ...] = (),
) -> LabelVerdict:
    return LabelVerdict(
        status=status,
        rows=len(taken),
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

    at = pd.to_datetime(arrived[AT], utc=True, errors="coerce", format="ISO8601" if _is_text(arrived[AT]) else None)
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


def _is_text(times: pd.Series[Any]) -> bool:
    return times.dtype.kind == "O"


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


def _arrival(day: str, label: NDArray[np.int64], about: pd.DataFrame) -> Arrival:
    """The sums by which an arrival is remembered: the score's first, folded too, then every numeric column's."""
    numeric = about.drop(columns=[DAY, SCORE]).select_dtypes("number")
    ranks = np.column_stack([_standard_ranks(about[[SCORE]]), _standard_ranks(numeric)])
    folded = np.abs(ranks[:, :1]) - np.abs(ranks[:, :1]).mean()
    spread = float(folded.std())
    ranks = np.column_stack([ranks, folded / spread if spread > 0 else folded])
    rows, defaults = len(label), int(label.sum())
    return Arrival(
        day=day,
        labels=rows,
        defaults=defaults,
        expected=float(about[SCORE].sum()),
        columns=(SCORE, *(str(name) for name in numeric.columns), f"{SCORE} from its middle"),
        pulls=tuple(float(pull) for pull in ranks[label == 1].sum(axis=0)),
        weight=defaults * (rows - defaults) / max(rows - 1, 1),
    )


def _standard_ranks(table: pd.DataFrame) -> Numbers:
    """Average ranks with mean 0 and deviation 1; 0 for the unknown and for columns that do not vary."""
    ranks = table.rank()
    centred = (ranks - ranks.mean()).fillna(0.0).to_numpy("float64")
    spread = centred.std(axis=0)
    standard: Numbers = centred / np.where(spread > 0, spread, np.inf)
    return standard


def _level(memory: LabelMemory) -> float:
    """How many times the scores' sum the defaults of late have been."""
    expected = sum(arrival.expected for arrival in memory.healthy)
    defaults = sum(arrival.defaults for arrival in memory.healthy)
    return defaults / expected if defaults and expected > 0 else 1.0


def _may_be_chance(label: NDArray[np.int64], expected: Numbers, labels: LabelQuality) -> bool:
    """Whether everybody has paid in so few labels that this may be chance."""
    chance = float(np.log1p(-labels.lowest_all_paid * expected).sum())
    return not label.any() and chance > np.log(labels.all_paid_chance)


def _wrong(
    label: NDArray[np.int64], expected: Numbers, arrival: Arrival, usual: float, labels: LabelQuality
) -> Iterator[Breach]:
    """What no honest world does to the outcomes as a whole: one in which the score ranks wrongly ranks it weakly."""
    rows, defaults = arrival.labels, arrival.defaults

    def breach(rule: str) -> Breach:
        return Breach(column=LABEL, rule=rule, rows=rows)

    if defaults in (0, rows):
        yield breach("is the same for all")
        return
    rate, mean = defaults / rows, float(expected.mean())
    least, most = labels.lowest_rate * mean, min(labels.highest_rate * mean, labels.ceiling)
    limit = -np.log(labels.rate_chance) / rows
    if (rate < least and _divergence(rate, least) > limit) or (rate > most and _divergence(rate, most) > limit):
        yield breach("has a base rate that no change of the world explains")
    flipped = float(np.log(np.where(label == 1, 1 - expected, expected)).sum())
    constant = rows * (rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    mirrored = labels.reversed_share * usual * arrival.weight**0.5
    is_reversed = _errors(arrival)[0] < -max(labels.reversed_errors, mirrored)
    if flipped > constant + labels.flipped_evidence or is_reversed:
        yield breach("is flipped")


def _divergence(rate: float, other: float) -> float:
    """Of one rate from another, in nats a row: times the rows it bounds minus the logarithm of a tail (Chernoff)."""
    return float(rate * np.log(rate / other) + (1 - rate) * np.log((1 - rate) / (1 - other)))


def _errors(*arrivals: Arrival) -> Numbers:
    """By how many standard errors the ranks of those who defaulted differ, for every column, over all arrivals."""
    weight = sum(arrival.weight for arrival in arrivals)
    pulls: Numbers = np.array([arrival.pulls for arrival in arrivals], dtype="float64").sum(axis=0)
    return pulls / float(max(weight, 1e-9) ** 0.5)


def _is_informative(labels: LabelQuality, *arrivals: Arrival) -> bool:
    """Whether defaults go with the score, or with anything else known about the applicants, beyond chance."""
    errors = _errors(*arrivals)
    return bool(errors[0] >= labels.score_errors or np.abs(errors).max() >= labels.column_errors)


def _goes_with_nothing(arrival: Arrival, memory: LabelMemory, labels: LabelQuality) -> bool:
    """Whether the score has lost what it had and no other column has anything; the score alone cannot tell.

    Where one arrival is too small to tell, those before it that left or confirmed the same doubt count with it.
    """
    has_others = len(arrival.columns) > len((SCORE, "folded"))
    if not has_others or _is_informative(labels, arrival) or _are_released(memory, arrival, labels):
        return False
    doubtful = [one for one in (*memory.doubtful, *memory.held) if one.columns == arrival.columns]
    usual = _usual_effect(memory, labels)
    return _has_lost(usual, labels, arrival) or _has_lost(usual, labels, *doubtful, arrival)


def _has_lost(usual: float, labels: LabelQuality, *arrivals: Arrival) -> bool:
    """Whether the score shows clearly less than usual over arrivals in which nothing else shows anything."""
    weight = sum(arrival.weight for arrival in arrivals)
    is_less = bool(_errors(*arrivals)[0] < usual * weight**0.5 - labels.drop_errors)
    return is_less and not _is_informative(labels, *arrivals)


def _usual_effect(memory: LabelMemory, labels: LabelQuality) -> float:
    """The difference in the score's standard ranks between those who defaulted and those who paid, of late."""
    weight = sum(one.weight for one in memory.healthy)
    if weight > 0:
        return sum(one.pulls[0] for one in memory.healthy) / weight
    return float(12**0.5) * (labels.usual_auc - 0.5)


def _are_released(memory: LabelMemory, arrival: Arrival, labels: LabelQuality) -> bool:
    """Whether held arrivals show the relation that this one shows, or together with it one that none shows alone.

    A relation that this one shows is looked for in them by itself. A feed in which the score is what it was has been
    repaired, and vouches for little that came before; one in which it is still less tells of a world that has changed.
    """
    alike = [one for one in memory.held if one.columns == arrival.columns]
    if not alike:
        return False
    if not _is_informative(labels, arrival):
        return _is_informative(labels, *alike, arrival)
    shown = _errors(arrival)
    clearest = int(np.abs(shown).argmax())
    is_as_usual = shown[0] > _usual_effect(memory, labels) * arrival.weight**0.5 - labels.changed_errors
    enough = labels.released_errors if is_as_usual else labels.changed_released_errors
    return bool(_errors(*alike)[clearest] * np.sign(shown[clearest]) >= enough)
