"""Our policy beside its rivals, on histories whose right answer is known.

Run: `python benchmarks/loop/run.py` from the environment that `make setup` made; `--kept-aside` uses the kinds and
seeds that were not looked at while the policy was tuned, `--only-rivals` leaves ours out. Ours is the command
`loan-assets backtest`, as anybody would call it; it sees the files that arrive and nothing else. Histories, replays and
the rivals' figures are kept under `--place`, so that a second run measures ours alone. It writes `results.md`,
`results.json` and `results.png`.

Here: running and what is read from a replay's output. Not here: verdicts (`judged`), the table (`scorecard`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from histories import ROWS_A_DAY, SEEDS_KEPT_ASIDE, TUNING_SEEDS, VOLUMES, History, chosen, write
from judged import Deeds, Judged, is_worse, judge, stretches
from kinds import KINDS
from rivals import POLICIES, Course, Observed, scores
from scorecard import draw, lines, table
from timeline import day_number

HERE = Path(__file__).resolve().parent
COMMAND = str(Path(sys.executable).parent / "loan-assets")
RULES = ("worlds", "faults", "timeline", "kinds", "verdicts", "histories", "rivals", "judged")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One history to be run, and how."""

    kind: str
    seed: int
    rows_a_day: int
    place: Path
    with_rivals: bool
    with_ours: bool


def run(task: Task) -> tuple[list[Judged], str]:
    """Every policy on one history, and why ours could not be run, if so."""
    history = write(KINDS[task.kind], task.seed, task.place / "histories", task.rows_a_day)
    judged = rivals_on(history, task.place) if task.with_rivals else []
    if not task.with_ours:
        return judged, ""
    try:
        return [*judged, ours_on(history, task.place / "replays" / history.name)], ""
    except subprocess.CalledProcessError as failed:
        last = (failed.stderr or failed.stdout or "").strip().splitlines()[-1:]
        return judged, f"{history.name}: exit {failed.returncode}: {' '.join(last)}"
    except (KeyError, ValueError, OSError) as unfit:  # what the replay left behind is not what is promised
        return judged, f"{history.name}: {type(unfit).__name__}: {unfit}"


def rivals_on(history: History, place: Path) -> list[Judged]:
    """Every rival, judged; the figures of an unchanged history and unchanged rules are kept."""
    rules = hashlib.sha256(b"".join((HERE / f"{name}.py").read_bytes() for name in RULES)).hexdigest()[:12]
    kept = place / "rivals" / f"{history.name}-{rules}.json"
    if kept.exists():
        return [judged_from(facts) for facts in json.loads(kept.read_text())]
    observed, judged = Observed(history), []
    for name, policy in POLICIES.items():
        started = time.monotonic()
        course = policy(observed)
        given = scores(observed, course)
        seconds = time.monotonic() - started
        judged.append(judge(history, name, deeds_of(course), given, worse_of(observed, course), seconds))
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps([asdict(one) for one in judged]))
    return judged


def judged_from(facts: dict[str, Any]) -> Judged:
    """What was kept as JSON, lists being tuples again."""
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
    return Judged(**given)


def deeds_of(course: Course) -> Deeds:
    """A rival's course as deeds; it sets nothing aside."""
    names = [str(number + 1) for number in course.serving]
    return Deeds(
        alarms=tuple(course.alarms),
        retrainings=tuple(course.retrainings),
        promotions=tuple(course.promotions),
        rollbacks=tuple(course.rollbacks),
        champion=(*names[1:], names[-1]),
        first=names[0],
    )


def worse_of(observed: Observed, course: Course) -> int:
    """How many promotions of a rival made the ranking worse for those whom the new model served."""
    truth = observed.history.truth().set_index("request_id")["label"]
    worse, served = 0, {course.serving[0]}
    for before, after, span in stretches(tuple(str(number) for number in course.serving)):
        if int(after) in served:
            continue
        served.add(int(after))
        rows = (observed.day >= span.first) & (observed.day <= span.last) & _sound(observed)
        one, other = (course.models[int(name)].log_odds(observed.inputs[rows]) for name in (before, after))
        worse += is_worse(truth.loc[observed.request[rows]], one, other)
    return worse


def _sound(observed: Observed) -> Any:
    return ~pd.Series(observed.day).isin(observed.history.verdict.quarantined).to_numpy()


def ours_on(history: History, out: Path) -> Judged:
    """Our policy by its command, judged by what it wrote."""
    arguments = [f"--{what}={history.folder / what}" for what in ("predictions", "labels")]
    arguments += [f"--reference={history.folder / 'reference.parquet'}", "--seed=0", f"--out={out}"]
    started = time.monotonic()
    _call("backtest", *arguments)
    seconds = time.monotonic() - started
    decisions = [json.loads(line) for line in (out / "decisions.jsonl").read_text().splitlines()]
    given = pd.read_parquet(out / "scores.parquet")
    return judge(history, "ours", deeds_from(decisions), given, worse_in(history, decisions, out), seconds)


def _call(*arguments: str) -> None:
    subprocess.run([COMMAND, *arguments], check=True, capture_output=True, text=True)


def deeds_from(decisions: list[dict[str, Any]]) -> Deeds:
    """What the lines of `decisions.jsonl` say was done, by day number."""

    def on(test: Any) -> tuple[int, ...]:
        return tuple(day_number(line["date"]) for line in decisions if test(line))

    return Deeds(
        alarms=on(lambda line: "alarm" in line["actions"]),
        retrainings=on(lambda line: "retrain" in line["actions"]),
        promotions=on(lambda line: "promote" in line["actions"]),
        rollbacks=on(lambda line: "rollback" in line["actions"]),
        champion=tuple(str(line["champion"]) for line in decisions),
        first=str(decisions[0]["served_by"]),
        quarantined=on(lambda line: line["batch"]["status"] == "quarantined"),
        not_ok=on(lambda line: line["batch"]["status"] != "ok"),
        refused=on(lambda line: line["labels"]["status"] == "quarantined"),
    )


def worse_in(history: History, decisions: list[dict[str, Any]], out: Path) -> int:
    """How many of our promotions made the ranking worse, each model asked by its command for the score of each row."""
    truth = history.truth().drop_duplicates("request_id").set_index("request_id")["label"]
    serving = tuple(str(line["served_by"]) for line in decisions)
    files, worse, served = history.arrived("predictions"), 0, {serving[0]}
    for before, after, span in stretches(serving):
        if after in served:
            continue
        served.add(after)
        days = [day for day in files if day in span and day not in history.verdict.quarantined]
        if not days:
            continue
        rows = pd.concat([files[day] for day in days], ignore_index=True)
        one, other = (_scored(rows, out, version)[rows["request_id"]].to_numpy() for version in (before, after))
        worse += is_worse(truth.loc[rows["request_id"]], one, other)
    return worse


def _scored(rows: pd.DataFrame, out: Path, version: str) -> pd.Series:
    """The score of each request by a version that the replay left behind, by request."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "rows.parquet", Path(folder) / "scores.parquet"
        rows.to_parquet(asked, index=False)
        _call("score", f"--model={out / 'models' / version}", f"--input={asked}", f"--out={answered}")
        said: pd.Series = pd.read_parquet(answered).set_index("request_id")["score"]
        return said


def tasks(given: argparse.Namespace) -> list[Task]:
    """The histories that were asked for; unchanged kinds are run at other volumes too."""
    seeds = [int(seed) for seed in given.seeds.split(",") if seed]
    seeds = seeds or list(SEEDS_KEPT_ASIDE if given.kept_aside else TUNING_SEEDS)
    kinds = chosen(given.kinds, kept_aside=None if given.kinds else given.kept_aside)
    volumes = VOLUMES if not given.kinds else (ROWS_A_DAY,)
    return [
        Task(
            kind=kind.name,
            seed=seed,
            rows_a_day=volume,
            place=given.place,
            with_rivals=not given.only_ours,
            with_ours=not given.only_rivals,
        )
        for seed in seeds
        for kind in kinds
        for volume in volumes
        if volume == ROWS_A_DAY or kind.family == "quiet"
    ]


def main() -> None:
    """Run, judge, write the scorecard."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kinds", default="", help="Names with commas between them; all for tuning when left out.")
    options.add_argument("--seeds", default="", help="Numbers with commas between them.")
    options.add_argument("--kept-aside", action="store_true", help="The kinds and seeds that were kept aside.")
    options.add_argument("--only-rivals", action="store_true")
    options.add_argument("--only-ours", action="store_true")
    options.add_argument("--workers", type=int, default=2, help="Histories at once.")
    options.add_argument("--place", type=Path, default=Path(tempfile.gettempdir()) / "loan-loop-benchmark")
    options.add_argument("--out", type=Path, default=HERE, help="Where results.md, .json and .png are written.")
    given = options.parse_args()
    asked, judged, failures = tasks(given), [], []
    started = time.monotonic()
    with ProcessPoolExecutor(given.workers) as pool:
        for number, (found, failure) in enumerate(pool.map(run, asked), start=1):
            judged += found
            failures += [failure] if failure else []
            said = [line for line in lines(found) if given.only_rivals or "` ours" in line] or [failure]
            print(f"{number} of {len(asked)}", *said, sep="\n", flush=True)
    what = "kinds and seeds kept aside" if given.kept_aside else "kinds and seeds for tuning"
    report(judged, failures, f"{len(asked)} histories, {what}, {time.monotonic() - started:.0f} s", given.out)
    if failures:
        sys.exit(f"{len(failures)} replays failed; see the end of {given.out / 'results.md'}.")


def report(judged: list[Judged], failures: list[str], what: str, out: Path) -> None:
    """The table, every history's line, the figures, the chart."""
    out.mkdir(parents=True, exist_ok=True)
    ours = [one for one in judged if one.policy == "ours"]
    text = ["# The loop on histories whose right answer is known", "", f"{what}. Medians of delays with their range."]
    text += ["`python benchmarks/loop/run.py` measures again; what is compared is said there.", "", *table(judged)]
    text += ["", "## History by history", "", *lines(ours or judged)]
    text += ["", "## Replays that failed", "", *(f"- {failure}" for failure in failures)] if failures else []
    (out / "results.md").write_text("\n".join(text) + "\n")
    (out / "results.json").write_text(json.dumps([asdict(one) for one in judged], indent=1) + "\n")
    draw(judged, out / "results.png")
    print("\n" + "\n".join(table(judged)))


if __name__ == "__main__":
    main()
