"""How often nothing looks like something: unchanged days at several sizes, and the retrainings they would ask for.

Run: `python benchmarks/quiet_days.py`. Days are drawn from clients that the reference does not hold. Every column is
held to the policy's limit for a day of that size, and beside it to Evidently's own limit of 0.1, whatever the size.
"""

import numpy as np

from loan_assets.books import the_book
from loan_assets.credit.drift import watched
from loan_assets.credit.straying import Reference
from loan_assets.policy import POLICY
from loan_assets.resources.loan_source import LoanSource

DAYS = 300
SIZES = (100, 250, 500, 1_000)
FIXED = 0.1


def main() -> None:
    """Live through the days and print one line per size."""
    book = the_book()
    received, _ = LoanSource().read(book)
    generator = np.random.default_rng(2)
    order = generator.permutation(len(received))
    reference = Reference.of(received.iloc[order[:24_000]], watched(book), POLICY.vigilance)
    unseen = received.iloc[order[24_000:]]
    for size in SIZES:
        ours, fixed = [], []
        for _ in range(DAYS):
            share, distances = reference.share(unseen.iloc[generator.choice(len(unseen), size, replace=False)], size)
            ours.append(share > POLICY.vigilance.retrain_above)
            fixed.append(
                np.mean([distance >= FIXED for distance in distances.values()]) > POLICY.vigilance.retrain_above
            )
        print(
            f"{size:>5} a day: of {DAYS} unchanged days {np.mean(ours):.1%} over {POLICY.vigilance.retrain_above} "
            f"({runs(ours)} times {POLICY.vigilance.consecutive} in a row); "
            f"at a fixed limit of {FIXED} {np.mean(fixed):.1%} ({runs(fixed)} times)"
        )


def runs(over: list[bool]) -> int:
    """How often so many days in a row are over that a retraining is asked for, each run once."""
    wanted, length, found = POLICY.vigilance.consecutive, 0, 0
    for is_over in over:
        length = length + 1 if is_over else 0
        found += length == wanted
    return found


if __name__ == "__main__":
    main()
