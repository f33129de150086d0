"""When to worry, when to retrain, who becomes champion and who comes back: the rule, over typed facts, without a clock.

Here: a state machine that does not know who feeds it: the backtest does. Not here: how a fact is measured (`straying`,
`performance`, `candidates`), or what it takes to carry a decision out.

A day is decided in three steps, each a pure function of the situation and what was found out: `watched` (alarms and
returns), `is_due` (whether an open episode has enough outcomes for a retraining) and `judged` (the challenger's trial).

An alarm opens an episode: the world has changed since some day. It is answered by retraining once enough outcomes of
the new world have settled, and again when they have multiplied, since the first answer rests on few. A change of the
inputs that ends before it was answered closes the episode. An archived champion comes back when the newest inputs
resemble what it learned from and no longer what the champion learned from, or when the newest outcomes speak for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date, timedelta
from enum import StrEnum
from typing import Any

from loan_assets.credit.candidates import Trial
from loan_assets.policy import Policy, Promotion, Succession

INPUTS, OUTCOMES, ASKED = "inputs", "outcomes", "asked"
PROMOTE, REJECT, WAIT = "promote", "reject", "wait"
# Steps on the way to promotion, where policy asks for them.
SHADOW, CANARY = "shadow", "canary"


class Kind(StrEnum):
    """What can be decided on a day."""

    ALARM = "alarm"
    RETRAIN = "retrain"
    PROMOTE = "promote"
    REJECT = "reject"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One decision, with its cause in words; `version` is the one that it is about."""

    kind: Kind
    cause: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeFound:
    """What the outcomes say of the champion: the strongest change among its newest arrivals, and its first day."""

    evidence: float
    since: str
    rows: int
    slope: float
    rate_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RivalFound:
    """How an archived champion does against the champion on the newest outcomes, in nats since it last fell behind."""

    evidence: float
    since: str
    rows: int
    auc_gain: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found out on a day.

    `shares` is, per version, the share of columns that lie beyond their limit; empty where the day's batch gives no
    check. `change` is None where no outcomes of the champion's time have arrived. `asked` are alarms from outside, in
    words; what is to be learned from then begins with the champion's time, or with `first_day` where it had no other.
    """

    date: str
    shares: Mapping[int, float] = field(default_factory=dict)
    change: ChangeFound | None = None
    rivals: Mapping[int, RivalFound] = field(default_factory=dict)
    asked: tuple[str, ...] = ()
    first_day: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """A change that is being answered: since when, by what it was noticed, and what was done about it so far.

    `asked_again` is whether somebody asked for an answer while one was on trial, and none was promoted or made since.
    """

    since: str
    opened: str
    causes: tuple[str, ...]
    retrainings: int = 0
    rows: int = 0
    fitted_on: str = ""
    promotions: int = 0
    asked_again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenger:
    """A version on trial: how often it was looked at, and on how many rows the last time.

    `stage` is `SHADOW` or `CANARY` where it is better and takes over by steps, `staged` the day this step began.
    """

    number: int
    made: str
    looks: int = 0
    rows: int = 0
    stage: str = ""
    staged: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a challenger did since its step began: how many answers, and how far its scores were from the platform's.

    In shadow its answers are those that were scored and logged beside the champion's.
    """

    answers: int = 0
    farthest: float = 0.0


AT_ONCE, NOT_SERVED = Promotion(), Served()


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A champion that made way for one whom outcomes spoke for, the day, and the change that was being answered."""

    version: int
    day: str
    episode: Episode


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything that is remembered from one day to the next.

    `in_force_since` is the day on which the champion was promoted or, where it `is_returned`, came back; empty for the
    first one. `judged_from` is the first day whose requests tell something about the champion; `normal_since` and
    `normal_until` name the days whose outcomes are its normal where that is not its trial's. `consecutive` counts the
    checks in a row over the limit, and `recent` holds every version's share at the last of them, newest last; `spell`
    are the days of the last such run, and `passed` the spells of other inputs that are over: what was asked in them
    tells nothing of today. `retrained` are the days of retrainings within a month. `left` is whom the champion came
    back in place of, where that closed a question.
    """

    champion: int = 1
    archived: tuple[int, ...] = ()
    newest: int = 1
    in_force_since: str = ""
    is_returned: bool = False
    judged_from: str = ""
    normal_since: str = ""
    normal_until: str = ""
    recent: tuple[tuple[str, Mapping[int, float]], ...] = ()
    spell: tuple[str, ...] = ()
    passed: tuple[tuple[str, str], ...] = ()
    consecutive: int = 0
    calm: int = 0
    is_answered: bool = False
    episode: Episode | None = None
    challenger: Challenger | None = None
    retrained: tuple[str, ...] = ()
    left: Left | None = None

    def as_facts(self) -> dict[str, Any]:
        """As plain data, for a file."""
        return asdict(self)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Situation:
        """Read what `as_facts` gave, after a journey through JSON."""
        challenger, left = facts["challenger"], facts.get("left")
        return cls(
            **{
                **facts,
                "archived": tuple(facts["archived"]),
                "recent": tuple(
                    (day, {int(version): share for version, share in shares.items()}) for day, shares in facts["recent"]
                ),
                "episode": _read_episode(facts["episode"]) if facts["episode"] else None,
                "challenger": Challenger(**challenger) if challenger else None,
                "spell": tuple(facts["spell"]),
                "passed": tuple((first, last) for first, last in facts["passed"]),
                "retrained": tuple(facts["retrained"]),
                "left": Left(**{**left, "episode": _read_episode(left["episode"])}) if left else None,
            }
        )


def _read_episode(facts: Mapping[str, Any]) -> Episode:
    return Episode(**{**facts, "causes": tuple(facts["causes"])})


Decided = tuple[Situation, tuple[Action, ...]]


def watched(situation: Situation, facts: Facts, policy: Policy) -> Decided:
    """The situation after a day's checks and outcomes, with the alarms and returns that follow."""
    actions: list[Action] = []
    on_trial, question = situation.challenger, situation.episode
    situation = _checked(situation, facts, policy)
    situation = _alarmed_by_inputs(situation, facts, policy, actions)
    situation = _alarmed_by_outcomes(situation, facts, policy, actions)
    for cause in facts.asked:
        actions.append(Action(kind=Kind.ALARM, cause=cause, version=situation.champion))
        since = situation.judged_from or facts.first_day or facts.date
        situation = _opened(situation, facts.date, since, ASKED, policy.succession)
    situation = _returned(situation, question, facts, policy, actions)
    situation = _closed(situation, facts, policy, actions)
    if on_trial is not None and situation.challenger is None and not any(one.kind is Kind.REJECT for one in actions):
        why = "what it was trained for is no longer the question"
        actions.append(Action(kind=Kind.REJECT, cause=why, version=on_trial.number))
    return situation, tuple(actions)


def is_due(situation: Situation, facts: Facts, outcomes: int, succession: Succession) -> bool:
    """Whether to retrain at the end of a day on which so many outcomes of the new world have settled.

    A repeated answer waits while outcomes hint at yet another change: it would learn from two worlds at once. While a
    challenger takes over by steps it is not overtaken.
    """
    today, episode, challenger = facts.date, situation.episode, situation.challenger
    if episode is None or episode.retrainings >= succession.retrainings or (challenger and challenger.stage):
        return False
    if not _may_retrain(situation, today, succession):
        return False
    if episode.asked_again and challenger is None:
        return outcomes >= succession.enough_outcomes
    if episode.retrainings:
        hint = facts.change is not None and facts.change.evidence >= succession.hint_evidence
        return outcomes >= episode.rows * succession.growth and not (episode.promotions and hint)
    late = _days(episode.opened, today) >= succession.deadline_days
    return outcomes >= (succession.least_outcomes if late else succession.enough_outcomes)


def _may_retrain(situation: Situation, today: str, succession: Succession) -> bool:
    """Whether cooldown and budget leave room for a retraining."""
    within = [day for day in situation.retrained if _days(day, today) < succession.budget_days]
    is_cooling = bool(within) and _days(within[-1], today) < succession.cooldown_days
    return len(within) < succession.budget and not is_cooling


def retrained(situation: Situation, today: str, outcomes: int, succession: Succession) -> Decided:
    """The situation after a retraining was begun: a challenger with the next number is on trial."""
    episode = situation.episode
    assert episode is not None  # `is_due` said so
    number = situation.newest + 1
    actions: tuple[Action, ...] = ()
    if situation.challenger is not None:
        withdrawn = "a challenger that learned from more takes its place"
        actions = (Action(kind=Kind.REJECT, cause=withdrawn, version=situation.challenger.number),)
    cause = f"{outcomes:,} outcomes since {episode.since} have settled ({', '.join(episode.causes)})"
    after = replace(
        situation,
        newest=number,
        challenger=Challenger(number=number, made=today),
        episode=replace(
            episode, retrainings=episode.retrainings + 1, rows=outcomes, fitted_on=today, asked_again=False
        ),
        retrained=(*(day for day in situation.retrained if _days(day, today) < succession.budget_days), today),
    )
    return after, (*actions, Action(kind=Kind.RETRAIN, cause=cause, version=number))


def judged(
    situation: Situation,
    today: str,
    trial: Trial,
    succession: Succession,
    promotion: Promotion = AT_ONCE,
    served: Served = NOT_SERVED,
) -> tuple[Situation, str, tuple[Action, ...]]:
    """The verdict on the challenger: `promote`, `reject`, `wait` for more outcomes, or the step that it stands on.

    A look at what was seen before is none: outcomes that come once a week do not use up a trial in a week.
    """
    challenger, episode = situation.challenger, situation.episode
    assert challenger is not None
    assert episode is not None
    if challenger.stage:
        return _stepped(situation, today, trial, succession, promotion, served)
    if trial.rows <= challenger.rows:
        return situation, WAIT, ()
    looks = challenger.looks + 1
    said = f"{trial.metric} {trial.challenger:.4f} against {trial.champion:.4f} on {trial.rows:,} later rows"
    looked = replace(situation, challenger=replace(challenger, looks=looks, rows=trial.rows))
    if not trial.against and _is_better(trial, is_first=episode.promotions == 0, succession=succession):
        return _on_stage(looked, SHADOW, today) if promotion.by_steps else _promoted(situation, today, said)
    if trial.against or looks >= succession.looks or is_worse(trial, succession):
        return _rejected(situation, "; ".join(trial.against) or f"not better: {said}")
    return looked, WAIT, ()


def _on_stage(situation: Situation, stage: str, today: str) -> tuple[Situation, str, tuple[Action, ...]]:
    challenger = situation.challenger
    assert challenger is not None
    return replace(situation, challenger=replace(challenger, stage=stage, staged=today)), stage, ()


def _stepped(
    situation: Situation, today: str, trial: Trial, succession: Succession, promotion: Promotion, served: Served
) -> tuple[Situation, str, tuple[Action, ...]]:
    """One step on, where its evidence is there; dismissed where anything speaks against the challenger."""
    challenger = situation.challenger
    assert challenger is not None
    said = f"{trial.metric} {trial.challenger:.4f} against {trial.champion:.4f} on {trial.rows:,} later rows"
    wrong = list(trial.against)
    if is_worse(trial, succession):
        wrong.append(f"worse: {said}")
    if served.farthest > promotion.farthest:
        wrong.append(f"the endpoint's scores are up to {served.farthest:.2g} from what they should be")
    if wrong:
        return _rejected(situation, f"dismissed in {challenger.stage}: {'; '.join(wrong)}")
    if served.answers < (promotion.shadow_answers if challenger.stage == SHADOW else promotion.canary_answers):
        return situation, challenger.stage, ()
    if challenger.stage == SHADOW:
        return _on_stage(situation, CANARY, today)
    return _promoted(situation, today, f"{said}; {served.answers:,} answers as a canary")


def registered(situation: Situation, number: int, known: tuple[int, ...]) -> tuple[Situation, tuple[Action, ...]]:
    """The situation once the challenger has its number in the registry.

    Training that had nothing new to learn gives a version that was known before: then there is no challenger.

    Args:
        known: the versions that are champion or were.
    """
    challenger = situation.challenger
    assert challenger is not None
    if number in known:
        return _rejected(situation, f"nothing new to learn: the same data gave version {number}")[::2]
    newest = max(number, situation.newest if situation.newest != challenger.number else 0)
    return replace(situation, challenger=replace(challenger, number=number), newest=newest), ()


def _is_better(trial: Trial, *, is_first: bool, succession: Succession) -> bool:
    if trial.metric == "log_loss":
        return trial.all_loss_z >= succession.recalibration_z and trial.loss_gain >= succession.recalibration_gain
    if trial.loss_gain < -succession.blind_margin:
        return False
    if not is_first:
        # The same world with twice the rows: what is asked is no more than a sign that it did not go wrong.
        return trial.auc_z >= succession.again_z and trial.auc_gain >= succession.again_gain
    ranks = trial.all_auc_z >= succession.first_z
    fits = trial.all_loss_z >= succession.first_z and trial.all_auc_z >= succession.held_z
    return (ranks or fits) and trial.auc_z >= succession.held_z and trial.auc_gain >= succession.first_gain


def is_worse(trial: Trial, succession: Succession) -> bool:
    """Whether more outcomes are not going to turn it."""
    return trial.auc_z < succession.hopeless_z and trial.loss_z < succession.hopeless_z


def _promoted(situation: Situation, today: str, said: str) -> tuple[Situation, str, tuple[Action, ...]]:
    challenger, episode = situation.challenger, situation.episode
    assert challenger is not None
    assert episode is not None
    after = _reigns(situation, today, challenger.number, episode.since)
    after = replace(after, episode=replace(episode, promotions=episode.promotions + 1, asked_again=False))
    return after, PROMOTE, (Action(kind=Kind.PROMOTE, cause=said, version=challenger.number),)


def _rejected(situation: Situation, said: str) -> tuple[Situation, str, tuple[Action, ...]]:
    challenger = situation.challenger
    assert challenger is not None
    action = Action(kind=Kind.REJECT, cause=said, version=challenger.number)
    return replace(situation, challenger=None), REJECT, (action,)


def _checked(situation: Situation, facts: Facts, policy: Policy) -> Situation:
    """Count the check: one over the limit goes on the run, a calm one ends it and arms the alarm again."""
    share = facts.shares.get(situation.champion)
    if share is None:
        return situation
    if share > policy.vigilance.retrain_above:
        most = max(policy.succession.remembered_checks, policy.vigilance.consecutive)
        kept = (*situation.recent, (facts.date, dict(facts.shares)))[-most:]
        spell, consecutive = (*situation.spell, facts.date), situation.consecutive + 1
        return replace(situation, recent=kept, spell=spell, consecutive=consecutive, calm=0)
    calmed = replace(situation, recent=(), consecutive=0, calm=situation.calm + 1, is_answered=False)
    if calmed.calm < policy.succession.calm_checks:
        return calmed
    is_spell = len(situation.spell) >= policy.vigilance.consecutive
    passed = (*situation.passed, (situation.spell[0], situation.spell[-1])) if is_spell else situation.passed
    return replace(calmed, spell=(), passed=passed)


def _alarmed_by_inputs(situation: Situation, facts: Facts, policy: Policy, actions: list[Action]) -> Situation:
    if situation.consecutive < policy.vigilance.consecutive or situation.is_answered or not facts.shares:
        return situation
    days = [day for day, _ in situation.recent]
    cause = f"share over {policy.vigilance.retrain_above} against version {situation.champion} on {', '.join(days)}"
    actions.append(Action(kind=Kind.ALARM, cause=cause, version=situation.champion))
    return _opened(replace(situation, is_answered=True), facts.date, days[0], INPUTS, policy.succession)


def _alarmed_by_outcomes(situation: Situation, facts: Facts, policy: Policy, actions: list[Action]) -> Situation:
    change, succession = facts.change, policy.succession
    if change is None or not is_harmful(change, succession):
        return situation
    if situation.episode is not None and not _is_another(change, situation.episode, succession):
        return situation
    cause = (
        f"the scores of version {situation.champion} mean something else since {change.since}: "
        f"slope {change.slope:.2f}, default rate {change.rate_ratio:.2f} of the expected, {change.rows:,} outcomes"
    )
    actions.append(Action(kind=Kind.ALARM, cause=cause, version=situation.champion))
    return _opened(situation, facts.date, change.since, OUTCOMES, succession)


def _is_another(change: ChangeFound, episode: Episode, succession: Succession) -> bool:
    """Whether outcomes speak of a change that the open episode does not know of yet."""
    if OUTCOMES not in episode.causes and not episode.retrainings:
        return True
    return _days(episode.since, change.since) > succession.days_alike


def is_harmful(change: ChangeFound, succession: Succession) -> bool:
    """Whether a change is both certain and large enough to matter."""
    off = max(change.rate_ratio, 1 / change.rate_ratio if change.rate_ratio > 0 else float("inf"))
    ranks_worse = change.slope < succession.change_slope and change.evidence >= succession.change_evidence
    return ranks_worse or (off > succession.change_rate and change.evidence >= succession.rate_evidence)


def _opened(situation: Situation, today: str, since: str, cause: str, succession: Succession) -> Situation:
    """Open an episode; one that is open and was not answered yet takes on the cause and the earlier first day."""
    episode = situation.episode
    if episode is not None and cause == ASKED:
        # Who asks does not know since when; the open question does.
        since = episode.since
        if situation.challenger is not None and not _may_retrain(situation, today, succession):
            # There is no other answer to be had now; the one on trial would only be thrown away.
            return replace(situation, episode=replace(_with_cause(episode, cause), asked_again=True))
    if episode is not None and not episode.retrainings and _days(episode.since, since) <= succession.days_alike:
        # The day on which inputs moved is seen, the one from which outcomes differ is estimated.
        first = since if cause == INPUTS else episode.since if INPUTS in episode.causes else min(since, episode.since)
        return replace(situation, episode=replace(_with_cause(episode, cause), since=first))
    if episode is not None and cause == INPUTS and since <= episode.fitted_on:
        return situation
    return replace(situation, episode=Episode(since=since, opened=today, causes=(cause,)), challenger=None)


def _with_cause(episode: Episode, cause: str) -> Episode:
    return episode if cause in episode.causes else replace(episode, causes=(*episode.causes, cause))


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class _Return:
    """An archived version that could come back, and how strongly that is asked for."""

    strength: float
    version: int
    since: str
    cause: str


def _returned(
    situation: Situation, question: Episode | None, facts: Facts, policy: Policy, actions: list[Action]
) -> Situation:
    """Bring an archived champion back when inputs, or else outcomes, are what it knew.

    The world is then one that is known, and the question what to learn from it is closed. Outcomes may have spoken by
    chance: where the one that was left comes back within days, the question is open again, with what it has cost.

    Args:
        question: what was being answered when the day began.
    """
    by_inputs = _known_inputs(situation, facts, policy)
    found = by_inputs or _known_outcomes(facts, policy.succession)
    if not found:
        return situation
    back, left, succession = max(found), situation.left, policy.succession
    actions.append(Action(kind=Kind.ROLLBACK, cause=back.cause, version=back.version))
    after = reverted(situation, facts.date, back.version, back.since)
    is_undone = left is not None and left.version == back.version
    if left is not None and is_undone and _days(left.day, facts.date) <= succession.undone_days:
        return replace(after, episode=left.episode if left.episode.retrainings < succession.retrainings else None)
    if by_inputs or question is None:
        return after
    return replace(after, left=Left(version=situation.champion, day=facts.date, episode=question))


def _known_inputs(situation: Situation, facts: Facts, policy: Policy) -> list[_Return]:
    """The archived versions that the inputs resemble which are strange to the champion, three checks in a row."""
    needed = policy.vigilance.consecutive
    if not facts.shares or situation.consecutive < needed:
        return []
    streak = situation.recent[-needed:]
    since = streak[0][0]
    found = []
    for number in situation.archived:
        shares = [measured[number] for _, measured in streak if number in measured]
        if len(shares) == needed and sum(shares) / needed <= policy.vigilance.retrain_above:
            cause = f"the inputs since {since} are what version {number} learned from"
            found.append(_Return(strength=-sum(shares), version=number, since=since, cause=cause))
    return found


def _known_outcomes(facts: Facts, succession: Succession) -> list[_Return]:
    """The archived versions that the newest outcomes speak for, and that rank them no worse."""
    return [
        _Return(
            strength=rival.evidence,
            version=number,
            since=rival.since,
            cause=f"version {number} fits {rival.rows:,} outcomes since {rival.since} better "
            f"by {rival.evidence:.1f} nats",
        )
        for number, rival in facts.rivals.items()
        if rival.evidence >= succession.return_evidence and rival.auc_gain >= -succession.return_margin
    ]


def approved(situation: Situation, today: str, number: int) -> Situation:
    """The situation after a person put a version in force: it is judged by what is asked from then on."""
    after = _reigns(situation, today, number, today)
    return replace(after, newest=max(number, situation.newest), episode=None)


def reverted(situation: Situation, today: str, number: int, since: str) -> Situation:
    """The situation after an archived version came back because of what was seen since a day."""
    return replace(_reigns(situation, today, number, since), is_returned=True, episode=None)


def _reigns(situation: Situation, today: str, number: int, since: str) -> Situation:
    """The situation when a version takes over: what was remembered of the champion before it is forgotten."""
    others = tuple(one for one in (*situation.archived, situation.champion) if one != number)
    return replace(
        situation,
        champion=number,
        archived=others,
        in_force_since=today,
        is_returned=False,
        judged_from=since,
        normal_since="",
        normal_until="",
        recent=(),
        spell=(),
        passed=(),
        consecutive=0,
        calm=0,
        is_answered=False,
        challenger=None,
        left=None,
    )


def _closed(situation: Situation, facts: Facts, policy: Policy, actions: list[Action]) -> Situation:
    """End an episode whose inputs have calmed before it was answered, or that was answered as often as may be."""
    episode, succession = situation.episode, policy.succession
    if episode is None:
        return situation
    calmed = episode.causes == (INPUTS,) and not episode.promotions and situation.calm >= succession.calm_checks
    spent = episode.retrainings >= succession.retrainings and situation.challenger is None
    late = _days(episode.opened, facts.date) > succession.episode_days
    if not (calmed or spent or late):
        return situation
    if situation.challenger is not None:
        why = "the inputs have calmed" if calmed else "the episode has gone on for too long"
        actions.append(Action(kind=Kind.REJECT, cause=why, version=situation.challenger.number))
    after = replace(situation, episode=None, challenger=None)
    if episode.promotions or calmed:
        return after
    # Nothing better was found: what is, is normal from now on.
    return replace(after, judged_from=_after(facts.date), normal_since=episode.since, normal_until=facts.date)


def _days(earlier: str, later: str) -> int:
    return (date.fromisoformat(later) - date.fromisoformat(earlier)).days


def _after(day: str) -> str:
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()
