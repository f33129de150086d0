"""How often nothing looks like something: unchanged days at several sizes, and the retrainings they would ask for.

Run: `python benchmarks/quiet_days.py`. Days are drawn from clients that the reference does not hold; distances are
those of Evidently, computed without it. The policy's smallest day is ignored here: that is what it was chosen from.
"""

from dataclasses import replace

import numpy as np

from loan_assets.books import the_book
from loan_assets.credit.drift import distance, has_moved, watched
from loan_assets.credit.vigilance import Check, Watch, asks_for_retraining, open_episode
from loan_assets.policy import POLICY
from loan_assets.resources.loan_source import LoanSource

DAYS = 100
SIZES = (250, 500, 1_000)


def main() -> None:
    """Live through the days and print one line per size."""
    book = the_book()
    received, _ = LoanSource().read(book)
    generator = np.random.default_rng(2)
    order = generator.permutation(len(received))
    reference, unseen = received.iloc[order[:24_000]], received.iloc[order[24_000:]]
    then = {column.name: reference[column.name].to_numpy("float64") for column in watched(book)}
    limits = replace(POLICY.vigilance, smallest_day=0)
    for size in SIZES:
        watch, asked, scores = Watch(seen=0), 0, []
        for number in range(DAYS):
            day = unseen.iloc[generator.choice(len(unseen), size, replace=False)]
            moved = [
                has_moved(distance(day[column.name].to_numpy("float64"), then[column.name], column), column, limits)
                for column in watched(book)
            ]
            scores.append(float(np.mean(moved)))
            watch = watch.after([Check(day=f"{number:04}", model_version=1, score=scores[-1])], seen=number)
            episode = open_episode(watch, 1, limits)
            if asks_for_retraining(watch, episode, limits):
                asked += 1
                watch = watch.answered(episode)
        over = np.mean(np.array(scores) > limits.retrain_above)
        print(
            f"{size:>5} a day: {over:.0%} of {DAYS} unchanged days over {limits.retrain_above}, "
            f"highest {max(scores):.2f}, retrainings asked for: {asked}"
        )


if __name__ == "__main__":
    main()
