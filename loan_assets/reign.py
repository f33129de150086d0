"""The champion's reign as the platform lives it: days are looked at, challengers judged, champions put in force.

Here: the rule of `credit.succession` applied to what the stores hold, each step written down before anything acts on
it. Not here: the rule itself, how facts are measured (`credit.deliberation`), or when a step is taken (`sensors`).

A step that was taken is not taken again: asking twice gives what was decided the first time. What is in force follows
the journal, never the other way round: after a kill at any instant the next run carries out what was decided last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from loan_assets.books import the_book
from loan_assets.credit.candidates import Trial, trial
from loan_assets.credit.deliberation import facts_of, trial_of
from loan_assets.credit.ledger import Ledger
from loan_assets.credit.retraining import Order
from loan_assets.credit.succession import (
    Action,
    Facts,
    Kind,
    Served,
    Situation,
    approved,
    is_due,
    is_worse,
    judged,
    registered,
    retrained,
    reverted,
    watched,
)
from loan_assets.credit.versions import Origin
from loan_assets.policy import Succession
from loan_assets.prediction_record import day_of
from loan_assets.refusal import Away, Overtaken, Refusal
from loan_assets.release import ORIGIN
from loan_assets.resources.decisions import (
    FIRST,
    GATE,
    MOVED,
    NAMED,
    PERSON,
    STAGED,
    WATCH,
    Decisions,
    Step,
    mlflow_knows,
)
from loan_assets.resources.live_history import LiveHistory, Memory
from loan_assets.resources.registry import CHAMPION, Registry
from loan_assets.settings import Settings
from loan_assets.standing import Mode

# What has to run after a step: a new model and its judgement, or the judgement and the move alone.
RETRAIN, SUCCEED = "retrain", "succeed"

# What was decided is on record, so nobody decides it again. The daemon gives up after some tries, until the next step.
OWED = (
    "What was decided is carried out by Dagster's daemon, after the next day's watch at the latest, or at once by "
    "`loan-assets put-in-force`."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reign:
    """The journal, and the places that follow it."""

    decisions: Decisions
    registry: Registry
    history: LiveHistory

    @classmethod
    def over(cls, settings: Settings) -> Reign:
        """The reign over a home, outside of a run of Dagster's."""
        return cls(
            decisions=Decisions.over(settings),
            registry=Registry(tracking_uri=settings.mlflow_uri, artifacts=settings.mlflow_artifacts),
            history=Memory.over(settings).of(the_book()),
        )

    def begun(self) -> Step | None:
        """The last step; where there is none yet, the first version is put in force if there is one.

        Its gate were the floors: nothing stood before it with which it could be compared.
        """
        last = self.decisions.last()
        number = self.registry.aliases().get(CHAMPION) if last is None else None
        if number is None:
            return last
        cause = "the first version that passed the floors"
        action = Action(kind=Kind.PROMOTE, cause=cause, version=number)
        situation = Situation(champion=number, newest=number)
        return self.decisions.record(FIRST, "", (action,), situation, after=0)

    def watch(self, day: str, shares: Mapping[int, float]) -> Step | None:
        """Look at a day: count its check, weigh the outcomes known at its end, decide.

        A day that is looked at again, or later than days after it, takes its place in the order as long as nothing was
        decided since: the days after it are then weighed anew.

        Args:
            shares: per version, the share of columns beyond their limit; empty where the day gave no check.

        Returns:
            The step; None for a day before one on which something was decided: its outcomes count from then on.
        """
        steps = self.decisions.steps()
        if not steps:
            raise Refusal("There is no champion yet.", "Run `loan-assets run` first.")
        since = len(steps)
        while steps[since - 1].kind == WATCH and not steps[since - 1].actions and steps[since - 1].date >= day:
            since -= 1
        after, recorded = steps[since:], _of_the_day(steps[:since], day)
        if recorded is None and steps[since - 1].date <= day:
            decided = self._decide(day, shares, steps[since - 1].situation)
            for later in sorted({step.date for step in after if step.date > day}):
                self._decide(later, _shares_of(_of_the_day(after, later)), self._last().situation)
            return decided
        if after or steps[-1].date > day or recorded is None or _shares_of(recorded) or not shares:
            return recorded
        # Outcomes that arrived during the day have had their say; the check of the day has not.
        return self._decide(day, shares, steps[-1].situation, checks_only=True)

    def _decide(
        self, day: str, shares: Mapping[int, float], situation: Situation, *, checks_only: bool = False
    ) -> Step:
        ledger = self.history.ledger(day)
        facts = Facts(date=day, shares=shares) if checks_only else self._facts(ledger, situation, day, shares)
        situation, actions = watched(situation, facts, self.history.policy)
        situation, more = self._ordered(situation, facts, ledger)
        evidence = {
            "shares": {str(number): share for number, share in facts.shares.items()},
            "change": asdict(facts.change) if facts.change else None,
            "rivals": {str(number): asdict(rival) for number, rival in facts.rivals.items()},
            "consecutive": situation.consecutive,
        }
        return self.decisions.record(WATCH, day, (*actions, *more), situation, evidence, after=self._last().number)

    def ask(self, cause: str, by: str, alarms: Collection[str] = ()) -> Step:
        """An alarm from outside: the same rule, cooldown and budget decide what comes of it.

        One that is raised again while its question is open gives what was decided then: alerts are repeated for as long
        as they fire, and each would take the challenger that answers them off its trial.

        Args:
            alarms: the names by which it is known again; what is said and by whom unless they are given.

        Raises:
            Refusal: when there is no champion yet.
        """
        last, alarms = self._last(), sorted(alarms) or [f"{by}: {cause}"]
        known = self._asked_before(alarms, last)
        if known is not None:
            return known
        day = max(last.date, day_of(datetime.now(UTC)))
        ledger = self.history.ledger(day)
        first_day = ledger.days[0].date if ledger.days else day
        facts = Facts(date=day, asked=(f"{cause} (asked by {by})",), first_day=first_day)
        situation, actions = watched(last.situation, facts, self.history.policy)
        situation, more = self._ordered(situation, facts, ledger)
        evidence = {"alarms": alarms}
        return self.decisions.record(PERSON, day, (*actions, *more), situation, evidence, by=by, after=last.number)

    def _asked_before(self, alarms: Collection[str], last: Step) -> Step | None:
        """The newest step that put one of these alarms, where all were put to the champion in the open episode."""
        found, unheard = None, set(alarms)
        for step in reversed(self.decisions.steps()):
            if not _is_one_question(step.situation, last.situation):
                return None
            heard = unheard.intersection(step.evidence.get("alarms", ()))
            found, unheard = found or (step if heard else None), unheard - heard
            if not unheard:
                return found
        return None

    def order(self) -> Order | None:
        """The retraining that was decided last and whose challenger is on trial; None where none is."""
        last = self.decisions.last()
        if last is None or last.situation.challenger is None or last.situation.episode is None:
            return None
        return Order(
            day=last.situation.challenger.made,
            champion=last.situation.champion,
            since=last.situation.episode.since,
            is_first=not last.situation.episode.promotions,
        )

    def fulfilled(self) -> int | None:
        """The released version that was made to the order in force; None while there is none."""
        order = self.order()
        for number in reversed(self.history.releases.released()) if order else ():
            _, folder = self.history.releases.shelf_of(number)
            said = folder / ORIGIN
            if order and said.exists() and Origin.from_json(said.read_text()).ordered == order.day:
                return number
        return None

    def judge(self) -> Step | None:
        """Try the challenger against the champion on later outcomes; None where nobody is on trial or was made yet."""
        last, number = self.decisions.last(), self.fulfilled()
        if last is None or number is None:
            return None
        judged_already = [step for step in self.decisions.steps() if step.kind == GATE and step.date == last.date]
        if judged_already and judged_already[-1].evidence.get("challenger") == number:
            return judged_already[-1]
        known = (last.situation.champion, *last.situation.archived)
        situation, actions = registered(last.situation, number, known)
        if situation.challenger is None:
            return self.decisions.record(GATE, last.date, actions, situation, {"challenger": number}, after=last.number)
        ledger = self.history.ledger(last.date)
        versions = self.history.versions({situation.champion, number}, ledger)
        policy = self.history.policy
        found = trial_of(ledger, versions, situation, self.history.book, policy)
        before = situation.champion
        assert situation.challenger is not None
        stage, staged = situation.challenger.stage, situation.challenger.staged
        served = self.history.served(versions[number], staged, stage) if stage else Served()
        situation, verdict, actions = judged(situation, last.date, found, policy.succession, policy.promotion, served)
        evidence = {
            "challenger": number,
            "champion": before,
            "verdict": verdict,
            "trial": asdict(found),
            "served": asdict(served) if stage else None,
        }
        return self.decisions.record(GATE, last.date, actions, situation, evidence, after=last.number)

    def put_in_force(self) -> Step | None:
        """Make pointer and alias follow the journal; None where the pointer does already.

        The release is verified before anything moves. A challenger that takes over by steps stands beside it then, or
        no longer does.

        Raises:
            Away: when MLflow is; a new champion waits for it, of one that was in force before only the alias does.
            Refusal: when a release is not sound, or MLflow knows of no judgement of its version.
        """
        last = self.begun()
        if last is None:
            return None
        moved = self._followed(last)
        self._tell_mlflow()
        return moved

    def _followed(self, last: Step) -> Step | None:
        """Make what serving reads follow the journal: the pointer, and who stands beside."""
        moved = None if self._is_crowned(last) else self._crowned(last)
        if not self._is_beside(last):
            self._put_beside(last)
        return moved

    def _is_crowned(self, last: Step) -> bool:
        """Whether the pointer names the champion of the journal, and the move is on record."""
        number, in_force, steps = last.situation.champion, self.history.releases.in_force(), self.decisions.steps()
        since = _decision_for(steps, number).number
        moves = [step for step in steps if step.kind == MOVED and step.number > since]
        is_moved = any(step.evidence["version"] == number for step in moves)
        return is_moved and in_force is not None and in_force.version == number

    def _tell_mlflow(self) -> None:
        """Have the alias name the champion of the journal, whoever that has become meanwhile."""
        named = 0
        while named != (number := self._last().situation.champion):
            try:
                if self.registry.aliases().get(CHAMPION) != number:
                    self.registry.promote(number)
            except Away as away:
                answers = self.history.releases.champion().version
                told = f"Version {answers} is in force, and MLflow's alias has not followed yet. {away.cause}"
                raise Away(told, OWED) from None
            named = number
        if not mlflow_knows(self.decisions.steps()):
            self._noted(NAMED, {"version": named})

    def _crowned(self, last: Step) -> Step:
        """Move the pointer, which serving follows, to the champion of the journal, and put that on record.

        MLflow, which refuses whom no gate has judged, is told of a new champion before. Who was champion already was
        judged then: it comes back whether MLflow answers or not.
        """
        number, releases, steps = last.situation.champion, self.history.releases, self.decisions.steps()
        digest, _ = releases.shelf_of(number)
        was_champion = any(step.kind == MOVED and step.evidence["version"] == number for step in steps)
        if not was_champion:
            try:
                self.registry.promote(number)
            except Away as away:
                raise Away(f"{_decided_on(number)} {away.cause}", OWED) from None
        releases.crown(number, digest)
        decided = _decision_for(steps[: last.number], number)
        before = steps[decided.number - 2].situation.champion if decided.number > 1 else 0
        seconds = (datetime.now(UTC) - datetime.fromisoformat(decided.at)).total_seconds()
        evidence = {
            "version": number,
            "before": before,
            "seconds": round(seconds, 3),
            "mlflow_knows": not was_champion,
            "decided_in": decided.number,
        }
        return self._noted(MOVED, evidence)

    def _put_beside(self, last: Step) -> None:
        """Let the challenger of the journal stand, or no longer.

        Its name is on record for as long as it may stand: written down before it is put there, taken back after it has
        left. Whom a kill leaves standing is then never taken for one that a person put there, who stays until a
        decision needs the place.
        """
        releases, terms, named = self.history.releases, self._wanted(last), self._named()
        if terms is None:
            stands = releases.standings().challenger
            if named is not None and stands is not None and stands.version == named[0]:
                releases.dismiss()
            self._noted(STAGED, {"challenger": 0, "stage": "", "share": 0.0})
            return
        if named != terms:
            number, stage, share = terms
            self._noted(STAGED, {"challenger": number, "stage": stage, "share": share})
        releases.challenge(*terms)

    def _is_beside(self, last: Step) -> bool:
        """Whether the challenger of the journal stands, or none is named where there is to be none."""
        terms, stands = self._wanted(last), self.history.releases.standings().challenger
        is_there = terms is None or (stands is not None and (stands.version, stands.mode, stands.share) == terms)
        return is_there and self._named() == terms

    def _wanted(self, last: Step) -> tuple[int, Mode, float] | None:
        """The challenger that is to stand beside the champion, and on which terms."""
        challenger = last.situation.challenger
        if challenger is None or not challenger.stage:
            return None
        mode = Mode(challenger.stage)
        return challenger.number, mode, self.history.policy.promotion.canary_share if mode is Mode.CANARY else 0.0

    def _named(self) -> tuple[int, Mode, float] | None:
        """The challenger that the journal let stand last, and on which terms; None where it has left."""
        said = next((step.evidence for step in reversed(self.decisions.steps()) if step.kind == STAGED), None)
        return (said["challenger"], Mode(said["stage"]), said["share"]) if said and said["challenger"] else None

    def _noted(self, kind: str, evidence: Mapping[str, object]) -> Step:
        """Write down what was done, after whatever was decided meanwhile: that is carried out next."""
        while True:
            last = self._last()
            with suppress(Overtaken):
                return self.decisions.record(kind, last.date, (), last.situation, evidence, after=last.number)

    def roll_back(self, to: int | None, why: str, by: str) -> tuple[Step, Step | None, str]:
        """Bring a former champion back at once, the last one unless another is named.

        Where one came back already, the last one is the version that was left: it has to be named then, so that who
        asks twice does not get it back.

        Returns:
            The decision, the move, and why MLflow's alias has not followed yet, empty where it has.

        Raises:
            Refusal: when there is none, the named one never was champion, or none is named and one came back already.
        """
        last = self._last()
        archived = last.situation.archived
        number = to if to is not None else (archived[-1] if archived else None)
        listed = ", ".join(str(one) for one in archived) or "none"
        if to is None and last.situation.is_returned:
            raise Refusal(
                f"Version {last.situation.champion} came back already, on {last.situation.in_force_since}.",
                f"Name the version that is to come back, one of: {listed}.",
            )
        if number is None or number not in archived:
            raise Refusal(
                f"Version {number} never was champion." if number else "No other version was champion yet.",
                f"Versions that can come back: {listed}.",
            )
        self.history.releases.shelf_of(number)  # verified before it is decided
        day = max(last.date, day_of(datetime.now(UTC)))
        action = Action(kind=Kind.ROLLBACK, cause=f"{why} (asked by {by})", version=number)
        situation = reverted(last.situation, day, number, day)
        decided = self.decisions.record(PERSON, day, (action,), situation, by=by, after=last.number)
        moved, waits = self._followed(decided), ""
        try:
            self._tell_mlflow()
        except Refusal as refused:
            waits = str(refused)
        return decided, moved, waits

    def approve(self, number: int, why: str, by: str) -> tuple[Step, Step | None]:
        """Put a version in force on a person's word: one that nobody ordered, of other features or another delivery.

        It has passed the floors, or it would have no release. Where outcomes later than its training can compare it
        with the champion, they have a say as well. Returns decision and move.

        Raises:
            Refusal: when it has no release, is champion already, or outcomes speak against it: nothing was decided.
            Away: when MLflow is; the decision is on record then, and is not taken again.
        """
        last = self._last()
        self.history.releases.shelf_of(number)  # verified before it is decided
        if number == last.situation.champion:
            if not self._is_crowned(last):
                raise Refusal(_decided_on(number), OWED)
            raise Refusal(f"Version {number} is champion already.", "Name another version.")
        day = max(last.date, day_of(datetime.now(UTC)))
        trial = self._compared(number, last.situation.champion, day)
        against = (*trial.against, *(["worse than the champion"] if is_worse(trial, self._succession) else []))
        if against:
            raise Refusal(
                f"{trial.rows:,} later outcomes speak against version {number}: {'; '.join(against)}.",
                "Retrain it, or wait for more outcomes; the champion stays.",
            )
        tried = f"tried on {trial.rows:,} later outcomes" if trial.rows else "no later outcomes to try it on"
        action = Action(kind=Kind.PROMOTE, cause=f"{why} (approved by {by}; {tried})", version=number)
        situation = approved(last.situation, day, number)
        evidence = {"challenger": number, "champion": last.situation.champion, "trial": asdict(trial)}
        decided = self.decisions.record(PERSON, day, (action,), situation, evidence, by=by, after=last.number)
        return decided, self.put_in_force()

    def _compared(self, number: int, champion: int, day: str) -> Trial:
        """Two versions on the outcomes of requests that neither was trained on; without rows where there are none."""
        history = self.history
        ledger = history.ledger(day)
        versions = history.versions({number, champion}, ledger)
        known = ledger.since("", labelled=True)
        held = known.where(known.day > max(version.learned_until for version in versions.values()))
        return trial(
            versions[number], versions[champion], held, ledger.since("", labelled=False), history.book, history.policy
        )

    def what_is_due(self) -> str | None:
        """Which job has to run now: `RETRAIN`, `SUCCEED`, or none.

        What was decided is carried out before anything else: who was dismissed does not answer while another is made.
        """
        last = self.decisions.last()
        if last is None:
            return None
        if not self._is_crowned(last) or not self._is_beside(last) or not mlflow_knows(self.decisions.steps()):
            return SUCCEED
        if last.situation.challenger is None:
            return None
        number = self.fulfilled()
        if number is None:
            return RETRAIN
        judged = [step for step in self.decisions.steps() if step.kind == GATE and step.date == last.date]
        return None if any(step.evidence.get("challenger") == number for step in judged) else SUCCEED

    def _facts(self, ledger: Ledger, situation: Situation, day: str, shares: Mapping[int, float]) -> Facts:
        versions = self.history.versions({situation.champion, *situation.archived}, ledger)
        return facts_of(ledger, versions, situation, day, shares, self.history.policy)

    def _ordered(self, situation: Situation, facts: Facts, ledger: Ledger) -> tuple[Situation, tuple[Action, ...]]:
        succession, episode = self._succession, situation.episode
        outcomes = ledger.count_since(episode.since, succession.least_of_each) if episode else 0
        if not is_due(situation, facts, outcomes, succession):
            return situation, ()
        return retrained(situation, facts.date, outcomes, succession)

    @property
    def _succession(self) -> Succession:
        return self.history.policy.succession

    def _last(self) -> Step:
        last = self.begun()
        if last is None:
            raise Refusal("There is no champion yet.", "Run `loan-assets run` first.")
        return last


def _is_one_question(one: Situation, other: Situation) -> bool:
    """Whether the same episode is open against the same champion."""
    if one.episode is None or other.episode is None:
        return False
    return (one.champion, one.episode.opened) == (other.champion, other.episode.opened)


def _of_the_day(steps: tuple[Step, ...], day: str) -> Step | None:
    found = [step for step in steps if step.kind == WATCH and step.date == day]
    return found[-1] if found else None


def _shares_of(step: Step | None) -> dict[int, float]:
    """The check on which a step rests, by version; empty where it had none."""
    return {int(number): share for number, share in step.evidence["shares"].items()} if step else {}


def _decided_on(number: int) -> str:
    return f"Version {number} is decided on and not in force yet."


def _decision_for(steps: tuple[Step, ...], number: int) -> Step:
    """The step since which a version is to be in force."""
    decided = steps[-1]
    for step in reversed(steps):
        if step.situation.champion != number:
            break
        decided = step
    return decided
