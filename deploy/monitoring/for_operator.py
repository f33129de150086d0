"""The rules as the Prometheus Operator takes them, kept in `deploy/k8s/components/service-monitor/rules.yaml`.

Here: `rules.yaml` and `slos.yaml` of this folder in one PrometheusRule. Not here: any rule.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
FILES = ("rules.yaml", "slos.yaml")


def for_operator() -> dict[str, Any]:
    """The PrometheusRule that says what the files say."""
    groups = [group for file in FILES for group in yaml.safe_load((HERE / file).read_text())["groups"]]
    about = {"name": "loan-assets", "labels": {"app.kubernetes.io/part-of": "loan-assets"}}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": about,
        "spec": {"groups": groups},
    }


if __name__ == "__main__":
    sys.stdout.write("# Written by deploy/monitoring/for_operator.py from the rules beside it.\n")
    yaml.safe_dump(for_operator(), sys.stdout, sort_keys=False, width=120)
