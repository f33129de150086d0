"""The door to MLflow's model registry: versions, the champion and challenger aliases, gate evidence as tags.

Here: registering and reading versions. Not here: whether a model deserves one (`credit.judging`) or runs
(`experiments`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from loan_assets.refusal import Refusal
from loan_assets.release import MODEL
from loan_assets.resources.experiments import MODEL_DIGEST, alone, connected, reached, run_of

CHAMPION, CHALLENGER = "champion", "challenger"
GATE, IDENTITY = "gate", "identity"
REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredVersion:
    """One registry version and its standing."""

    version: int
    alias: str
    model_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A judged model that may be registered.

    `identity` covers all that a release of it will decide by; `standing` says what it was admitted as.
    """

    identity: str
    model_digest: str
    evidence: Mapping[str, str]
    standing: str = "passed the floors"


class Registry(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The registered model `loan-default` at `tracking_uri`; one that only looks puts nothing in place there."""

    tracking_uri: str
    artifacts: str
    only_looks: bool = False

    def register(self, candidate: Candidate) -> tuple[RegisteredVersion, bool]:
        """Register a logged model with its gate evidence, unless the very same candidate is registered already.

        The first version becomes champion, later ones challenger. The evidence is written before any alias moves, so an
        alias never points at a version that was not judged; what a kill left undone is done by the next call.

        Returns:
            The version, and whether it is new.
        """
        client = self._client()
        with alone(self.tracking_uri, "registry"):
            version = self._gated_version_of(client, candidate.identity)
            is_new = version is None
            if version is None:
                version = self._create(client, candidate)
            aliases = self.aliases()
            newest = max(int(one.version) for one in client.search_model_versions(f"name='{MODEL}'"))
            if CHAMPION not in aliases:
                client.set_registered_model_alias(MODEL, CHAMPION, str(version))
            elif version == newest and version not in aliases.values():
                client.set_registered_model_alias(MODEL, CHALLENGER, str(version))
            alias = next((name for name, held in self.aliases().items() if held == version), "")
        return RegisteredVersion(version=version, alias=alias, model_digest=candidate.model_digest), is_new

    def promote(self, version: int) -> None:
        """Make a version the champion; where it was the challenger, there is none any more.

        Raises:
            Refusal: when the version carries no evidence of its gate.
        """
        client = self._client()
        with alone(self.tracking_uri, "registry"):
            if GATE not in self.tags(version):
                raise Refusal(f"Version {version} was never judged.", "Materialize model_version again.")
            client.set_registered_model_alias(MODEL, CHAMPION, str(version))
            if self.aliases().get(CHALLENGER) == version:
                client.delete_registered_model_alias(MODEL, CHALLENGER)

    def judge(self, version: int, verdict: str) -> None:
        """Write down what the gate said of a version; one that was refused is no challenger any more."""
        client = self._client()
        with alone(self.tracking_uri, "registry"):
            client.set_model_version_tag(MODEL, str(version), GATE, verdict)
            if verdict.startswith(REFUSED) and self.aliases().get(CHALLENGER) == version:
                client.delete_registered_model_alias(MODEL, CHALLENGER)

    def _create(self, client: Any, candidate: Candidate) -> int:
        _ensure_model(client)
        run_id = run_of(reached(self.tracking_uri), candidate.model_digest)
        # MLflow 3 keeps a logged model beside its run, not in the run's own artifacts.
        model_id = client.get_run(run_id).outputs.model_outputs[0].model_id
        created = client.create_model_version(
            MODEL,
            source=client.get_logged_model(model_id).artifact_location,
            run_id=run_id,
            model_id=model_id,
            tags={MODEL_DIGEST: candidate.model_digest, IDENTITY: candidate.identity, **candidate.evidence},
        )
        client.set_model_version_tag(MODEL, str(created.version), GATE, candidate.standing)
        return int(created.version)

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
        if self.only_looks:
            return reached(self.tracking_uri).MlflowClient()
        return connected(self.tracking_uri, self.artifacts).MlflowClient()

    @staticmethod
    def _gated_version_of(client: Any, identity: str) -> int | None:
        found = client.search_model_versions(f"name='{MODEL}' and tags.{IDENTITY}='{identity}'")
        return min((int(version.version) for version in found if GATE in version.tags), default=None)


def _ensure_model(client: Any) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(MODEL, description="Probability that a client misses the next payment")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
