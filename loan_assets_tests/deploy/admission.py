"""Why a cluster would not take a manifest: Kubernetes' own schema, and the policy in `deploy/policy/manifests.rego`.

Here: asking both. Not here: the manifests (`test_manifests`) or a cluster (`cluster`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import kubernetes_validate
from regopy import Interpreter

from loan_assets_tests.conftest import ROOT

POLICY = ROOT / "deploy" / "policy" / "manifests.rego"
# The oldest and the newest that banks run today, and the one between.
VERSIONS = ("1.32", "1.35", "1.37")
VIOLATIONS = "data.loan_assets.manifests.violation"


def refused_by_schema(manifest: Mapping[str, Any], version: str) -> list[str]:
    """What a version of Kubernetes does not know; kinds that others define are no part of its schema."""
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return []
    except kubernetes_validate.ValidationError as unfit:
        return [f"{'.'.join(map(str, unfit.path))}: {unfit.message}"]
    return []


def is_kubernetes_own(manifest: Mapping[str, Any]) -> bool:
    """Whether a kind is one of Kubernetes, and not of an operator that a cluster may have."""
    group = str(manifest["apiVersion"]).rpartition("/")[0]
    return "." not in group or group.endswith(".k8s.io")


def refused_by_policy(manifest: Mapping[str, Any]) -> list[str]:
    """What our own policy says against a manifest, asked as Gatekeeper asks."""
    engine = _engine()
    engine.set_input({"review": {"object": manifest}})
    (found,) = json.loads(str(engine.query(VIOLATIONS)))["expressions"]
    return [violation["msg"] for violation in found]


@cache
def _engine() -> Interpreter:
    engine = Interpreter()
    engine.add_module(POLICY.name, POLICY.read_text())
    return engine
