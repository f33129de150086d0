"""A policy read from a file: the one in `policy.py`, with the fields that the file names set otherwise.

Here: reading YAML into the policy's own types, every misspelt or misshapen field named. Not here: the numbers.

    vigilance:
      consecutive: 4
    succession:
      enough_outcomes: 1000
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from loan_assets.policy import POLICY, Policy
from loan_assets.refusal import Refusal

# Fields that are shares, probabilities or areas under a curve.
SHARES = re.compile(r"_(share|chance|quantile|above|out|learned|ratio|rate|auc)$|[.](quantile|confidence|auc|brier)$")
NEXT = "Name sections and fields as in loan_assets/policy.py and give each a value of the same kind."


@cache
def the_policy() -> Policy:
    """The policy of this installation: the one in `policy.py`, and otherwise what the file named by LOAN_POLICY sets.

    Raises:
        Refusal: as `policy_of`, and where the file speaks of what the endpoint carries with it.
    """
    named = os.environ.get("LOAN_POLICY", "").strip()
    if not named:
        return POLICY
    policy = policy_of(Path(named))
    for section in ("endpoint", "explanation"):
        if getattr(policy, section) != getattr(POLICY, section):
            raise Refusal(
                f"{named}: {section} travels with the Bento and cannot be set here.",
                f"Set it in loan_assets/policy.py, build the Bento again, and take {section} out of the file.",
            )
    return policy


def policy_of(path: Path) -> Policy:
    """The policy that a YAML file describes.

    Raises:
        Refusal: naming the file and the field, when the file is no YAML, a field does not exist, or has another type.
    """
    import yaml

    try:
        said = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise Refusal(f"{path} is not there.", "Give a YAML file, or leave the policy out.") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as unreadable:
        raise Refusal(f"{path} cannot be read as YAML ({type(unreadable).__name__}).", NEXT) from None
    policy: Policy = _with(POLICY, {} if said is None else said, str(path), ())
    return policy


def _with(section: Any, said: Any, file: str, where: tuple[str, ...]) -> Any:
    """A section with what was said of it."""
    if not isinstance(said, dict):
        raise Refusal(f"{file}: {'.'.join(where) or 'the file'} must hold fields and values.", NEXT)
    known = {one.name: getattr(section, one.name) for one in fields(section)}
    changed = {}
    for name, value in said.items():
        path = ".".join((*where, str(name)))
        if name not in known:
            near = get_close_matches(str(name), list(known), n=1)
            meant = f"; is {near[0]!r} meant?" if near else ""
            raise Refusal(f"{file}: there is no field {path!r}{meant}", NEXT)
        before = known[name]
        if is_dataclass(before):
            changed[name] = _with(before, value, file, (*where, str(name)))
        else:
            changed[name] = _typed(value, before, f"{file}: {path}")
    return replace(section, **changed)


def _typed(value: Any, before: Any, where: str) -> Any:
    """The value as the kind of the one before; a whole number will do for a fraction, nothing else for another."""
    if isinstance(before, tuple):
        if isinstance(value, list) and len(value) == len(before):
            return tuple(_typed(one, known, where) for one, known in zip(value, before, strict=True))
        raise Refusal(f"{where} takes {len(before)} values.", NEXT)
    if type(before) is float and (type(value) is int or _is_written_float(value)):
        value = float(value)
    if type(value) is not type(before):
        raise Refusal(f"{where} takes a value of type {type(before).__name__}, not {type(value).__name__}.", NEXT)
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check(value, before, where)
    return value


def _is_written_float(value: Any) -> bool:
    """Whether this is a fraction in the notation that YAML 1.1 takes for text: 5e-3."""
    return isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value) is not None


def _check(value: float, before: float, where: str) -> None:
    """Refuse what the field cannot mean: each keeps the sign of its standard value, shares stay within 0 and 1.

    Raises:
        Refusal: naming the field and what it takes.
    """
    if not math.isfinite(value):
        raise Refusal(f"{where} is not a number.", NEXT)
    if type(before) is int and before > 0 and value < 1:
        raise Refusal(f"{where} takes a whole number of at least 1, not {value}.", NEXT)
    if (before > 0 and value < 0) or (before < 0 and value > 0):
        raise Refusal(f"{where} takes a {'positive' if before > 0 else 'negative'} number, not {value}.", NEXT)
    if SHARES.search(where) and before <= 1 < value:
        raise Refusal(f"{where} takes a share between 0 and 1, not {value}.", NEXT)
