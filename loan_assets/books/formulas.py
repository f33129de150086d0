"""The arithmetic that feature formulas are written in, the same for one number and for a million.

Here: functions built from + - * / and comparisons only, so that a plain float and a numpy array give the same bits.
Not here: anything from `math` or numpy, whose powers and logarithms differ from scalar arithmetic in the last bit.

A missing number (NaN) stays missing through every function but `happened`, where a month that is not there is a month
in which nothing happened.
"""

from typing import Any


def share(part: Any, whole: Any) -> Any:
    """`part / whole`, and 0 where there is no whole to divide."""
    nothing = whole == 0
    return part / (whole + nothing) * (1 - nothing)


def larger(first: Any, second: Any) -> Any:
    """The larger of two numbers."""
    return first * (first >= second) + second * (second > first)


def smaller(first: Any, second: Any) -> Any:
    """The smaller of two numbers."""
    return first * (first <= second) + second * (second < first)


def positive(number: Any) -> Any:
    """The number itself where it is above zero, else 0."""
    return number * (number > 0)


def happened(condition: Any) -> Any:
    """1.0 where a comparison holds, else 0.0."""
    return condition * 1.0
