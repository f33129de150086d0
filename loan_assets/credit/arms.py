"""Which clients a canary answers: one draw for a name, the same in the serving box and in a backtest.

Here: the draw. Not here: who stands as a canary (`standing`) or answers (the box).
"""

from hashlib import blake2b


def falls_into(share: float, name: str, drawn_for: str) -> bool:
    """Whether a name falls into a share of all names, 0 to 1: always the same for the same name and purpose."""
    place = int.from_bytes(blake2b(f"{drawn_for}:{name}".encode(), digest_size=8).digest(), "big")
    return place < share * 2.0**64
