"""How the model is made: the frozen split, the fit, the out-of-fold estimate, and the flat copy of the trees.

Here: scikit-learn and ONNX, imported when needed. Not here: scoring (`scoring`), judging (`judging`), or MLflow.
One thread and fixed seeds throughout: the same rows give the same bytes.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loan_assets.books import LoanBook, Role
from loan_assets.credit.lookup import TreeTables
from loan_assets.credit.scoring import Calibration, FlatTrees, probability
from loan_assets.credit.versions import Origin
from loan_assets.policy import Boosting, Splits
from loan_assets.refusal import Refusal

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

TRAIN, HOLDOUT, LOGGED = "train", "holdout", "logged"
# As many as a histogram of the boosting has bins.
LEVELS = 255
ONNX_OPSET = {"": 21, "ai.onnx.ml": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedModel:
    """A fitted model in its portable forms, with the digests of what it came from.

    `flat_gap` and `onnx_gap` are the largest differences in probability from the scikit-learn pipeline, over every row
    of the training set, holdout included. `model_digest` names trees and calibration: one digest is one model.
    `origin` and `threshold` are those of a challenger, `estimates` its cross-validated probabilities for the rows that
    it learned from, shape (rows,); a model of the book has none of them, for its scorecard finds them.
    """

    trees: FlatTrees
    onnx: bytes
    features: tuple[str, ...]
    dataset_digest: str
    model_digest: str
    rows: int
    flat_gap: float
    onnx_gap: float
    calibration: Calibration = field(default_factory=Calibration)
    threshold: float | None = None
    origin: Origin | None = None
    estimates: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def save(self, folder: Path) -> None:
        """Write the trees, the ONNX copy and the facts as plain files."""
        import json

        self.trees.save(folder / "trees")
        (folder / "model.onnx").write_bytes(self.onnx)
        np.save(folder / "estimates.npy", self.estimates)
        facts = {name: getattr(self, name) for name in self.__slots__ if name not in ("trees", "onnx", "estimates")}
        facts["calibration"] = asdict(self.calibration)
        facts["origin"] = self.origin.as_facts() if self.origin else None
        (folder / "model.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> FittedModel:
        """Read what `save` wrote."""
        import json

        facts = json.loads((folder / "model.json").read_text())
        facts["features"] = tuple(facts["features"])
        facts["calibration"] = Calibration(**facts["calibration"])
        facts["origin"] = Origin.from_facts(facts["origin"]) if facts["origin"] else None
        trees, onnx = FlatTrees.load(folder / "trees"), (folder / "model.onnx").read_bytes()
        return cls(trees=trees, onnx=onnx, estimates=np.load(folder / "estimates.npy"), **facts)


def part_of_each_row(label: NDArray[np.int64], splits: Splits) -> NDArray[np.object_]:
    """`train` or `holdout` for each row in source order: the frozen split, stratified by outcome."""
    from sklearn.model_selection import train_test_split

    _, held_out = train_test_split(
        np.arange(len(label)), test_size=splits.holdout_share, stratify=label, random_state=splits.holdout_seed
    )
    parts = np.full(len(label), TRAIN, dtype=object)
    parts[held_out] = HOLDOUT
    return parts


def dataset_digest(training_set: pd.DataFrame) -> str:
    """SHA-256 over the column names, types and values of a table, whatever file holds it."""
    digest = hashlib.sha256()
    for name in training_set.columns:
        values = training_set[name]
        digest.update(f"{name}:{values.dtype}\n".encode())
        if values.dtype == object:
            digest.update("\n".join(values.astype(str)).encode())
        else:
            numbers = values.astype("int64") if values.dtype.kind == "M" else values
            digest.update(np.ascontiguousarray(numbers.to_numpy()).tobytes())
    return digest.hexdigest()


def inputs_of(training_set: pd.DataFrame, book: LoanBook) -> NDArray[np.float64]:
    """The model's inputs, shape (rows, features): float32 numbers held in double precision, book's order.

    Raises:
        Refusal: if a protected column were among them.
    """
    protected = {column.name for column in book.with_role(Role.PROTECTED)}
    reading = {feature.name: protected & set(feature.inputs) for feature in book.features}
    leaking = sorted({name for name in book.feature_names if name in protected or reading[name]})
    if leaking:
        raise Refusal(
            f"The features {', '.join(leaking)} read protected columns.",
            "Remove them from the book: a protected attribute may be audited, never learned from.",
        )
    return training_set[list(book.feature_names)].to_numpy(dtype="float32").astype("float64")


def fit(
    inputs: NDArray[np.float64],
    label: NDArray[np.int64],
    book: LoanBook,
    boosting: Boosting,
    weight: NDArray[np.float64] | None = None,
) -> Pipeline:
    """A fitted pipeline with one step: gradient boosting, monotonic where the book gives a feature a direction.

    Args:
        weight: what each row counts, shape (rows,); all alike where none is given.

    Raises:
        Refusal: when there is only one outcome to learn from, or an input is infinite.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline

    if len(np.unique(label)) < 2:
        raise Refusal(
            f"All {len(label):,} training rows have the same outcome.", "Train on rows that contain both outcomes."
        )
    if np.isinf(inputs).any():
        named = [name for name, column in zip(book.feature_names, inputs.T, strict=True) if np.isinf(column).any()]
        raise Refusal(
            f"Infinite values in {', '.join(named)}.", "Mend the features and materialize training_set again."
        )
    model = HistGradientBoostingClassifier(
        max_iter=boosting.trees,
        learning_rate=boosting.learning_rate,
        max_leaf_nodes=boosting.leaves,
        max_depth=boosting.depth,
        min_samples_leaf=boosting.smallest_leaf,
        l2_regularization=boosting.shrinkage,
        max_features=boosting.features_per_split,
        monotonic_cst=[feature.direction for feature in book.features],
        early_stopping=False,
        random_state=boosting.seed,
    )
    if weight is not None:
        inputs = _coarse(inputs)
    with one_thread():
        fitted = Pipeline([("boosting", model)]).fit(inputs, label, boosting__sample_weight=weight)
    for stage in model._predictors:
        nodes = stage[0].nodes
        nodes["num_threshold"] = _in_single_precision(nodes["num_threshold"])
    return fitted


def _in_single_precision(threshold: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest single-precision numbers that are not above the thresholds.

    For single-precision inputs every split stays what it was, and a copy that holds its thresholds in single precision
    splits alike; rounded to the nearest, an input that lies between the two would go the other way there.
    """
    nearest = threshold.astype("float32")
    below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest > threshold, below, nearest).astype("float64")


def _coarse(inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each column cut down to the levels that boosting would bin it to.

    Weighted rows are binned by scikit-learn one percentile at a time, which costs more than the fit; a column of few
    levels is taken as it is.
    """
    coarse = inputs.copy()
    for position in range(inputs.shape[1]):
        values = inputs[:, position]
        known = np.isfinite(values)
        if len(np.unique(values[known])) > LEVELS:
            steps = np.unique(np.quantile(values[known], np.linspace(0, 1, LEVELS), method="lower"))
            at = np.searchsorted(steps, values[known], side="right") - 1
            coarse[known, position] = steps[np.maximum(at, 0)]
    return coarse


def out_of_fold(
    inputs: NDArray[np.float64], label: NDArray[np.int64], book: LoanBook, boosting: Boosting, splits: Splits
) -> NDArray[np.float64]:
    """Each row's probability of default from a model that did not see it, shape (rows,)."""
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(splits.folds, shuffle=True, random_state=splits.fold_seed)
    estimates = np.empty(len(label))
    for seen, unseen in folds.split(inputs, label):
        fold = flatten(fit(inputs[seen], label[seen], book, boosting))
        estimates[unseen] = probability(fold.log_odds(inputs[unseen].astype("float32")))
    return estimates


def train(training_set: pd.DataFrame, book: LoanBook, boosting: Boosting) -> tuple[Pipeline, FittedModel]:
    """Fit on the training part and prove the flat and ONNX copies on every row.

    Args:
        training_set: the table of `books.tables.training_set`.

    Returns:
        The scikit-learn pipeline, for MLflow, and the same model in portable form.
    """
    inputs = inputs_of(training_set, book)
    seen = (training_set["part"] == TRAIN).to_numpy()
    label = training_set[book.label.name].to_numpy()
    pipeline = fit(inputs[seen], label[seen], book, boosting)
    return pipeline, proved(pipeline, Calibration(), training_set, int(seen.sum()), book)


def proved(
    pipeline: Pipeline, calibration: Calibration, training_set: pd.DataFrame, rows: int, book: LoanBook
) -> FittedModel:
    """A fitted pipeline in its portable forms, held against scikit-learn on every row.

    Args:
        pipeline: the trees, and the calibration where there is one.
        rows: how many rows it was fitted on.
    """
    inputs = inputs_of(training_set, book)
    boosting = getattr(pipeline[-1], "boosting", pipeline)  # within its calibration, where it has one
    trees = flatten(boosting)
    TreeTables.of(trees, len(book.features))  # refuses, before anything is logged, trees that cannot be explained
    onnx = to_onnx(boosting, len(book.features))
    with one_thread():
        expected = pipeline.predict_proba(inputs)[:, 1]
    single = inputs.astype("float32")
    portable = calibrated(onnx_probability(onnx, single), calibration)
    return FittedModel(
        trees=trees,
        onnx=onnx,
        features=book.feature_names,
        dataset_digest=dataset_digest(training_set),
        model_digest=model_digest(trees, calibration),
        rows=rows,
        flat_gap=float(np.abs(probability(trees.log_odds(single), calibration) - expected).max()),
        onnx_gap=float(np.abs(portable - expected).max()),
        calibration=calibration,
    )


def calibrated(estimate: NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
    """Probabilities of trees alone, as the ONNX copy gives them, after the calibration line."""
    if calibration == Calibration():
        return estimate
    return probability(np.log(estimate) - np.log1p(-estimate), calibration)


def flatten(pipeline: Pipeline) -> FlatTrees:
    """A fitted pipeline's trees as flat arrays, in double precision as scikit-learn holds them."""
    model = pipeline[-1]
    trees = [stage[0].nodes for stage in model._predictors]
    sizes = np.array([len(nodes) for nodes in trees])
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    nodes = np.concatenate(trees)
    if nodes["is_categorical"].any():
        raise Refusal("A tree splits on a category, which flat trees do not hold.", "Use numeric features only.")
    offset = np.repeat(roots, sizes)
    leaf = nodes["is_leaf"].astype(bool)
    itself = np.arange(len(nodes))
    return FlatTrees(
        feature=np.where(leaf, 0, nodes["feature_idx"]).astype("int32"),
        threshold=np.where(leaf, 0.0, nodes["num_threshold"]).astype("float64"),
        left=np.where(leaf, itself, nodes["left"] + offset).astype("int32"),
        right=np.where(leaf, itself, nodes["right"] + offset).astype("int32"),
        missing_left=np.where(leaf, False, nodes["missing_go_to_left"]).astype("bool"),
        value=nodes["value"].astype("float64"),
        cover=nodes["count"].astype("int64"),
        roots=roots.astype("int32"),
        baseline=np.asarray(model._baseline_prediction, dtype="float64").reshape(1),
        depth=np.array([nodes["depth"].max()], dtype="int32"),
    )


def model_digest(trees: FlatTrees, calibration: Calibration | None = None) -> str:
    """SHA-256 over the arrays, and over the calibration where there is one: the name of a model, in whatever file."""
    digest = hashlib.sha256()
    if calibration is not None and calibration != Calibration():
        digest.update(f"{calibration.slope!r} {calibration.intercept!r}\n".encode())
    for name in sorted(trees.__slots__):
        array = getattr(trees, name)
        digest.update(f"{name}:{array.dtype}:{array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def to_onnx(pipeline: Pipeline, features: int) -> bytes:
    """The pipeline as ONNX with one float32 input of shape (rows, features); the same model gives the same bytes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own deprecations
        from skl2onnx import to_onnx as convert

        model = convert(
            pipeline, np.zeros((1, features), dtype="float32"), options={"zipmap": False}, target_opset=ONNX_OPSET
        )
    return bytes(model.SerializeToString())


def onnx_probability(onnx: bytes, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probability of default by onnxruntime, shape (rows,)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    _, probabilities = session.run(None, {session.get_inputs()[0].name: features})
    return np.asarray(probabilities[:, 1], dtype="float64")


def settings_of(boosting: Boosting) -> dict[str, float]:
    """The model's settings by name, for the tracking run."""
    return dict(asdict(boosting))


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold OpenMP to one thread: sums keep their order, and a busy machine is not made busier."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield
