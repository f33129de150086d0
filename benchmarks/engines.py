"""How much longer Spark takes than the embedded engine on the real table, which one machine holds with ease.

Run: `python benchmarks/engines.py` with the extra `spark` and a Java. The engines take turns; a step's figure is the
median of five rounds after one that is not counted, in seconds, and starting a session is told apart.
"""

import statistics
import tempfile
import time
from collections.abc import Callable

from loan_assets.books import the_book
from loan_assets.books.calendar import months_of
from loan_assets.credit.statements import profiles_of
from loan_assets.resources.engine import Engine
from loan_assets.resources.loan_source import LoanSource
from loan_assets.resources.spark import SparkEngine

ROUNDS = 5


def took(step: Callable[[], object]) -> float:
    """The seconds of one step."""
    started = time.monotonic()
    step()
    return time.monotonic() - started


def main() -> None:
    """Take turns and print one line a step."""
    book, source = the_book(), LoanSource()
    received, _ = source.read(book)
    months, profiles = months_of(book), profiles_of(received, book)
    known = Engine().statements_of(months, received, book)
    steps: dict[str, Callable[[Engine], object]] = {
        "reading and checking the book": lambda engine: source.read(book, engine),
        "statements of six months": lambda engine: engine.statements_of(months, received, book),
        "features of six months": lambda engine: engine.features_of(months, known, profiles, book),
    }
    with tempfile.TemporaryDirectory() as folder:
        spark = SparkEngine(master="", conf="", folder=folder)
        print(f"a session starts in {took(lambda: spark.session):.1f} s\n\n{'':32}embedded   spark   ratio")
        for name, step in steps.items():
            rounds = [[took(lambda: step(engine)) for engine in (Engine(), spark)] for _ in range(ROUNDS + 1)][1:]  # noqa: B023
            here, there = (statistics.median(times) for times in zip(*rounds, strict=True))
            print(f"{name:32}{here:8.2f}{there:8.2f}{there / here:8.0f}")
        spark.stop()


if __name__ == "__main__":
    main()
