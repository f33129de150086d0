"""What the servers are given: the model in each peer's form, and rows from the real table with the answers expected."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from loan_assets.books import Role, the_book
from loan_assets.credit.training import fit, inputs_of
from loan_assets.policy import POLICY
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.bento_store import BentoStore
from loan_assets.resources.release_store import ReleaseStore

FEATURE_STORE = """\
project: loan_assets
provider: local
registry: {{registry_type: sql, path: "sqlite:///{home}/feast/registry.db", cache_ttl_seconds: 60}}
offline_store: {{type: duckdb}}
online_store: {{type: sqlite, path: "{home}/feast/online.db"}}
entity_key_serialization_version: 3
"""


def prepare(home: Path, place: Path, rows: int) -> tuple[str, list[dict[str, Any]]]:
    """Write the models below `place`; returns the Bento's tag, and rows as every server needs them.

    A row holds an application with the fields that a lender sends, the client's number, the features, and the
    probability that the batch has for it.
    """
    import joblib
    import mlflow

    book = the_book()
    store = AssetStore(root=str(home / "store"), keep=POLICY.versions_kept)
    training_set, received, scores = (
        store.read(name, object) for name in ("training_set", "raw_loan_book", "batch_scores")
    )
    inputs = inputs_of(training_set, book)
    seen = (training_set["part"] == "train").to_numpy()
    pipeline = fit(inputs[seen], training_set[book.label.name].to_numpy()[seen], book, POLICY.boosting)
    joblib.dump(pipeline, place / "model.joblib")

    releases = ReleaseStore(root=str(home / "releases"))
    champion = releases.champion()
    release = home / "releases" / champion.path
    shutil.copy2(release / "model.onnx", place / "model.onnx")
    tag = BentoStore(home=str(home / "bentoml")).tag_of(champion.version, champion.digest)
    box = place / "box"
    shutil.rmtree(box, ignore_errors=True)
    name, version = tag.split(":")
    shutil.copytree(home / "bentoml" / "bentos" / name / version / "src", box)

    shutil.rmtree(place / "mlflow", ignore_errors=True)
    mlflow.sklearn.save_model(
        pipeline,
        str(place / "mlflow"),
        serialization_format="cloudpickle",
        pyfunc_predict_fn="predict_proba",
        pip_requirements=["scikit-learn"],
    )
    (place / "mlserver").mkdir(exist_ok=True)
    settings = {
        "name": "loan-default",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(place / "model.joblib")},
    }
    (place / "mlserver" / "model-settings.json").write_text(json.dumps(settings))
    (place / "feast").mkdir(exist_ok=True)
    (place / "feast" / "feature_store.yaml").write_text(FEATURE_STORE.format(home=home))

    drawn = received.sample(rows, random_state=1).index
    fields = [column.name for column in book.with_role(Role.FEATURE, Role.PROTECTED)]
    applications = received.loc[drawn, fields].to_dict("records")
    return tag, [
        {
            "application": application,
            "client": int(received.at[row, book.key.name]),
            "features": inputs[row].tolist(),
            "probability": float(scores.at[row, "default_probability"]),
        }
        for row, application in zip(drawn, applications, strict=True)
    ]
