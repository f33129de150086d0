"""What `podman kube play` is given of a rendered stack: Deployments and ConfigMaps, on images of this machine.

Here: `for_podman.py NAME=IMAGE ... < rendered > played`. Not here: what the stack is (`deploy/k8s`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

KNOWN = ("ConfigMap", "Deployment")


def for_podman(manifests: Iterable[dict[str, Any]], images: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The manifests of kinds that podman knows, their images those of this machine."""
    for manifest in manifests:
        if manifest["kind"] not in KNOWN:
            continue
        if manifest["kind"] == "Deployment":
            pod = manifest["spec"]["template"]["spec"]
            # A disk of one's own is a folder of this machine's.
            for volume in pod["volumes"]:
                if volume.pop("ephemeral", None):
                    volume["emptyDir"] = {}
            # Volumes of one name are one volume to it, whatever pods they are of.
            for named in (*pod["volumes"], *(mount for one in pod["containers"] for mount in one["volumeMounts"])):
                named["name"] = f"{manifest['metadata']['name']}-{named['name']}"
            for container in pod["containers"]:
                name = container["image"].partition(":")[0]
                container["image"] = images[name]
                # Nor does it know a probe of gRPC or what happens before a stop, and on the machine's network no ports.
                for unknown in ("lifecycle", "ports", "livenessProbe", "readinessProbe", "startupProbe"):
                    container.pop(unknown, None)
                # Nor a namespace.
                told = container.get("env", [])
                container["env"] = [one for one in told if "fieldRef" not in one.get("valueFrom", {})]
        yield manifest


if __name__ == "__main__":
    given = dict(pair.split("=", 1) for pair in sys.argv[1:])
    yaml.safe_dump_all(for_podman(yaml.safe_load_all(sys.stdin), given), sys.stdout)
