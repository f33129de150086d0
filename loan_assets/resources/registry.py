"""The door to MLflow's model registry: versions, the champion and challenger aliases, gate evidence as tags.

Here: registering and reading versions. Not here: whether a model deserves one (`credit.succession`) or runs
(`experiments`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from loan_assets.resources.experiments import MODEL_DIGEST, connected, run_of

MODEL = "loan-default"
CHAMPION, CHALLENGER = "champion", "challenger"
GATE = "gate"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredVersion:
    """One registry version and its standing."""

    version: int
    alias: str
    model_digest: str


class Registry(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The registered model `loan-default` at `tracking_uri`."""

    tracking_uri: str
    artifacts: str

    def register(self, model_digest: str, evidence: Mapping[str, str]) -> tuple[RegisteredVersion, bool]:
        """Register a logged model with its gate evidence, unless a gated version of the same model is there.

        The first gated version becomes champion, later ones challenger. The evidence is written before any alias moves,
        so an alias never points at a version that was not judged.

        Returns:
            The version, and whether it is new.
        """
        client = self._client()
        same = self._gated_version_of(client, model_digest)
        if same is not None:
            aliases = self.aliases()
            alias = next((name for name, version in aliases.items() if version == int(same.version)), "")
            return RegisteredVersion(version=int(same.version), alias=alias, model_digest=model_digest), False
        _ensure_model(client)
        run_id = run_of(connected(self.tracking_uri, self.artifacts), model_digest)
        # MLflow 3 keeps a logged model beside its run, not in the run's own artifacts.
        model_id = client.get_run(run_id).outputs.model_outputs[0].model_id
        created = client.create_model_version(
            MODEL,
            source=client.get_logged_model(model_id).artifact_location,
            run_id=run_id,
            model_id=model_id,
            tags={MODEL_DIGEST: model_digest, **evidence},
        )
        client.set_model_version_tag(MODEL, str(created.version), GATE, "passed the floors")
        alias = CHALLENGER if CHAMPION in self.aliases() else CHAMPION
        client.set_registered_model_alias(MODEL, alias, str(created.version))
        return RegisteredVersion(version=int(created.version), alias=alias, model_digest=model_digest), True

    def aliases(self) -> dict[str, int]:
        """Each alias and the version it points at; empty before the first registration."""
        from mlflow.exceptions import MlflowException

        client = self._client()
        try:
            found = client.get_registered_model(MODEL).aliases
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise
        return {alias: int(version) for alias, version in found.items()}

    def tags(self, version: int) -> dict[str, str]:
        """The tags of one version: digests and gate evidence."""
        return dict(self._client().get_model_version(MODEL, str(version)).tags)

    def half_registered(self) -> tuple[int, ...]:
        """Versions without gate evidence: what a kill between two registry calls leaves behind."""
        client = self._client()
        found = client.search_model_versions(f"name='{MODEL}'")
        return tuple(sorted(int(version.version) for version in found if GATE not in version.tags))

    def _client(self) -> Any:
        return connected(self.tracking_uri, self.artifacts).MlflowClient()

    @staticmethod
    def _gated_version_of(client: Any, model_digest: str) -> Any | None:
        found = client.search_model_versions(f"name='{MODEL}' and tags.{MODEL_DIGEST}='{model_digest}'")
        gated = [version for version in found if GATE in version.tags]
        return min(gated, key=lambda version: int(version.version)) if gated else None


def _ensure_model(client: Any) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(MODEL, description="Probability that a client misses the next payment")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
