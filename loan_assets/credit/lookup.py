"""Trees as tables: every way a row can answer a small tree's questions, with the leaf and the SHAP values it leads to.

Here: building the tables once from flat trees, and reading a score and its explanation from them; numpy and nothing
else. Not here: which contributions become reasons, and in which words (`reasons`).

A tree of at most seven questions has 128 sets of answers. Asking all questions of all trees at once is one comparison
of two arrays, and the answers, packed into bits, are the place in the table. SHAP values are those of the
path-dependent value function (Lundberg et al. 2020, doi:10.1038/s42256-019-0138-9), computed exactly over the subsets
of a tree's features.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial

import numpy as np
from numpy.typing import NDArray

from loan_assets.credit.scoring import FlatTrees
from loan_assets.refusal import Refusal

MOST_QUESTIONS = 7
# One byte holds a tree's answers; its highest bit is never used.
SLOTS, ENTRIES = 8, 1 << MOST_QUESTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeTables:
    """Every tree of a model as one row of each table.

    Shapes: `feature`, `threshold`, `missing_left` are (trees * SLOTS,), one question a slot, unused ones never true;
    `first` is (trees,), where each tree's entries begin; `leaf` is (trees * ENTRIES,) and `shap` is
    (trees * ENTRIES, features), both log-odds. `expected` is the log-odds of a row about which nothing is known.
    """

    feature: NDArray[np.intp]
    threshold: NDArray[np.float32]
    missing_left: NDArray[np.bool_]
    first: NDArray[np.intp]
    leaf: NDArray[np.float64]
    shap: NDArray[np.float64]
    baseline: float
    expected: float

    @classmethod
    def of(cls, trees: FlatTrees, features: int) -> TreeTables:
        """The tables of a model with so many input features.

        Raises:
            Refusal: when a tree asks more than seven questions.
        """
        count = len(trees.roots)
        feature, threshold = np.zeros((count, SLOTS), "intp"), np.full((count, SLOTS), -np.inf, "float32")
        missing_left = np.zeros((count, SLOTS), "bool")
        leaf, shap = np.empty((count, ENTRIES)), np.zeros((count, ENTRIES, features))
        expected = float(trees.baseline[0])
        for tree, root in enumerate(trees.roots):
            questions = _questions(trees, int(root))
            for slot, node in enumerate(questions, start=1):
                feature[tree, slot] = trees.feature[node]
                threshold[tree, slot] = _as_single(float(trees.threshold[node]))
                missing_left[tree, slot] = trees.missing_left[node]
            goes_left = {node: _bit(slot) for slot, node in enumerate(questions, start=1)}
            leaf[tree] = _leaf_of(trees, int(root), goes_left)
            used = sorted({int(trees.feature[node]) for node in questions})
            shap[tree][:, used], unknown = _shap_of(trees, int(root), goes_left, used)
            expected += unknown
        return cls(
            feature=feature.ravel(),
            threshold=threshold.ravel(),
            missing_left=missing_left.ravel(),
            first=np.arange(count, dtype="intp") * ENTRIES,
            leaf=leaf.ravel(),
            shap=shap.reshape(count * ENTRIES, features),
            baseline=float(trees.baseline[0]),
            expected=expected,
        )

    def entries_of(self, features: NDArray[np.float32]) -> NDArray[np.intp]:
        """Where each tree's entry for each row is, shape (rows, trees), for features of shape (rows, features).

        A missing feature (NaN) takes the side it took in training.
        """
        asked = features.take(self.feature, axis=1, mode="clip")
        answers = asked <= self.threshold
        # A sum is missing when one of its terms is: cheaper than asking each of them.
        if np.isnan(features.sum()):
            answers |= np.isnan(asked) & self.missing_left
        return np.packbits(answers).reshape(len(features), -1) + self.first

    def log_odds(self, entries: NDArray[np.intp]) -> NDArray[np.float64]:
        """Log-odds, shape (rows,): the very bits of `FlatTrees.log_odds`, whose order of addition it keeps."""
        return np.asarray(self.leaf.take(entries).cumsum(axis=1)[:, -1] + self.baseline)

    def contributions(self, entries: NDArray[np.intp]) -> NDArray[np.float64]:
        """What each feature adds to the log-odds over `expected`, shape (rows, features), for entries (rows, trees)."""
        return np.stack([self.shap.take(row, axis=0, mode="clip").sum(axis=0) for row in entries])

    def agree_with(self, trees: FlatTrees, features: NDArray[np.float32]) -> bool:
        """Whether the tables and the trees give the same bits for these rows, and contributions add up to them."""
        entries = self.entries_of(features)
        log_odds = self.log_odds(entries)
        added = self.contributions(entries).sum(axis=1) + self.expected
        same = np.array_equal(log_odds, trees.log_odds(features))
        return same and bool((np.abs(added - log_odds) <= 1e-9).all())


def _questions(trees: FlatTrees, root: int) -> list[int]:
    """The nodes of a tree that ask a question, parents first."""
    questions, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        if trees.left[node] != node:
            questions.append(node)
            waiting += [int(trees.right[node]), int(trees.left[node])]
    if len(questions) > MOST_QUESTIONS:
        raise Refusal(
            f"A tree asks {len(questions)} questions; an exact explanation by lookup holds {MOST_QUESTIONS}.",
            "Set POLICY.boosting.leaves to 8 or fewer and train again.",
        )
    return questions


def _bit(slot: int) -> NDArray[np.bool_]:
    """For each entry of a table, whether the question of a slot was answered with yes: the row goes left."""
    return (np.arange(ENTRIES) >> (SLOTS - 1 - slot) & 1).astype(bool)


def _as_single(threshold: float) -> np.float32:
    """The largest float32 not above a double: a float32 feature compares with both alike."""
    single = np.float32(threshold)
    return np.nextafter(single, np.float32(-np.inf)) if float(single) > threshold else single


def _leaf_of(trees: FlatTrees, root: int, goes_left: dict[int, NDArray[np.bool_]]) -> NDArray[np.float64]:
    """The value of the leaf that each set of answers leads to, shape (ENTRIES,)."""

    def reached(node: int) -> NDArray[np.float64]:
        if node not in goes_left:
            return np.full(ENTRIES, trees.value[node])
        return np.where(goes_left[node], reached(int(trees.left[node])), reached(int(trees.right[node])))

    return reached(root)


def _shap_of(
    trees: FlatTrees, root: int, goes_left: dict[int, NDArray[np.bool_]], used: list[int]
) -> tuple[NDArray[np.float64], float]:
    """SHAP values of the features that a tree uses, shape (ENTRIES, len(used)), and its value when nothing is known."""
    subsets = np.arange(1 << len(used))
    is_known = {feature: (subsets >> place & 1).astype(bool) for place, feature in enumerate(used)}

    def value(node: int) -> NDArray[np.float64]:
        """The tree's value from this node on, shape (ENTRIES, subsets), where only a subset of the features is known.

        An unknown feature sends as many rows each way as it did in training.
        """
        if node not in goes_left:
            return np.full((ENTRIES, len(subsets)), trees.value[node])
        left, right = int(trees.left[node]), int(trees.right[node])
        on_the_left, on_the_right = value(left), value(right)
        known = np.where(goes_left[node][:, None], on_the_left, on_the_right)
        share = trees.cover[left] / (trees.cover[left] + trees.cover[right])
        unknown = share * on_the_left + (1 - share) * on_the_right
        return np.where(is_known[int(trees.feature[node])], known, unknown)

    worth = value(root)
    sizes = np.array([subset.bit_count() for subset in subsets.tolist()])
    weights = np.array([_weight(size, len(used)) for size in range(len(used))])
    shap = np.empty((ENTRIES, len(used)))
    for place, feature in enumerate(used):
        without = subsets[~is_known[feature]]
        gains = worth[:, without | (1 << place)] - worth[:, without]
        shap[:, place] = gains @ weights[sizes[without]]
    return shap, float(worth[0, 0])


def _weight(size: int, features: int) -> float:
    """Shapley's weight of a coalition of `size` of the other features."""
    return factorial(size) * factorial(features - size - 1) / factorial(features)
