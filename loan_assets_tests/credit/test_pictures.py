"""The pictures: whatever is written above one is seen whole."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.image import imread
from numpy.typing import NDArray

from loan_assets.credit.fairness import GroupOutcome
from loan_assets.credit.pictures import approvals, distances, small_multiples

# In pixels: how high a title of two lines is, and how far it stays from an edge.
TITLE, EDGE = 36, 3


def pixels(png: bytes) -> NDArray[np.float64]:
    return np.asarray(imread(io.BytesIO(png), format="png"), dtype="float64")[:, :, :3]


def test_no_title_reaches_the_edge_however_long_the_labels_are() -> None:
    outcome = GroupOutcome(
        attribute="marital_status",
        group="in a word for many",
        rows=100,
        approved=0.8,
        payers_refused=0.1,
        defaulters_approved=0.2,
        is_judged=True,
    )
    moved = {f"payment_two_months_ago_{place:03}": (0.1 * place, 0.3) for place in range(23)}
    for png in (approvals([outcome], 0.8), distances(moved)):
        seen = pixels(png)[:TITLE]
        assert seen.min() < 0.5
        assert (seen[:, :EDGE] == 1).all()
        assert (seen[:, -EDGE:] == 1).all()


def test_the_names_above_small_pictures_do_not_touch() -> None:
    generator = np.random.default_rng(1)
    seen = pixels(small_multiples({f"payment_two_months_ago_{place}": generator.random(200) for place in range(5)}))
    names = seen[:14].min(axis=(0, 2)) < 0.9
    gaps = np.diff(np.flatnonzero(names))
    assert (gaps > 15).sum() == 4
