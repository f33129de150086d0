"""What is deployed: known to three versions of Kubernetes, allowed by the policy, whole, and the same in overlays."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from loan_assets.settings import Settings
from loan_assets_tests.conftest import ROOT
from loan_assets_tests.deploy.admission import POLICY, VERSIONS, is_kubernetes_own, refused_by_policy, refused_by_schema

K8S = ROOT / "deploy" / "k8s"
# That of one machine is no cluster's: see `test_images`.
ON_ONE_MACHINE = "podman"
OVERLAYS = sorted(folder.name for folder in (K8S / "overlays").iterdir() if folder.name != ON_ONE_MACHINE)
KUBECTL = shutil.which("kubectl")
needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="kubectl, which renders overlays, is not installed")
# What is no manifest of a cluster: what kustomize reads, and what is put into ConfigMaps.
INSIDE = {"dagster.yaml", "machines.yaml", "workspace.yaml", "kustomization.yaml", "parts.yaml"}
Manifest = dict[str, Any]


def written() -> Iterator[tuple[str, Manifest]]:
    """Every manifest as it is written down."""
    for file in sorted(K8S.rglob("*.yaml")):
        if file.name not in INSIDE:
            for manifest in yaml.safe_load_all(file.read_text()):
                yield f"{file.relative_to(K8S)}: {manifest['kind']} {manifest['metadata']['name']}", manifest


WRITTEN = dict(written())
DEPLOYMENT = WRITTEN["base/endpoint.yaml: Deployment loan-assets-endpoint"]


def rendered(folder: Path) -> list[Manifest]:
    assert KUBECTL is not None
    made = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return list(yaml.safe_load_all(made.stdout))


def templates(manifests: list[Manifest]) -> Iterator[tuple[str, dict[str, str], Manifest]]:
    """Whose pods, their labels, and what they are."""
    for manifest in manifests:
        name, spec = manifest["metadata"]["name"], manifest.get("spec", {})
        spec = spec["jobTemplate"]["spec"] if manifest["kind"] == "CronJob" else spec
        if manifest["kind"] in ("Deployment", "Job", "CronJob"):
            yield name, spec["template"]["metadata"]["labels"], spec["template"]["spec"]
        if manifest["kind"] == "InferenceService":
            yield name, spec["predictor"]["labels"], spec["predictor"]


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for name, _, pod in templates(manifests):
        yield name, pod


@pytest.mark.parametrize("name", WRITTEN)
def test_every_manifest_is_known_to_kubernetes_and_allowed_by_the_policy(name: str) -> None:
    manifest = WRITTEN[name]
    assert refused_by_policy(manifest) == []
    if is_kubernetes_own(manifest):
        assert [said for version in VERSIONS for said in refused_by_schema(manifest, version)] == []


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_renders_to_manifests_that_are_as_good(overlay: str) -> None:
    manifests = rendered(K8S / "overlays" / overlay)
    newest = VERSIONS[-1]
    told = {
        (manifest["kind"], manifest["metadata"]["name"]): [
            *refused_by_policy(manifest),
            *refused_by_schema(manifest, newest),
        ]
        for manifest in manifests
    }
    assert len(told) == len(manifests)
    assert {name: said for name, said in told.items() if said} == {}
    by_kind = {manifest["kind"] for manifest in manifests}
    assert {"ResourceQuota", "LimitRange", "PodDisruptionBudget", "NetworkPolicy", "Role", "Job"} <= by_kind
    assert ("ServiceMonitor" in by_kind) is ("PrometheusRule" in by_kind) is (overlay != "staging")


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whatever_a_pod_refers_to_is_there(overlay: str) -> None:
    manifests = rendered(K8S / "overlays" / overlay)
    made = {kind: {one["metadata"]["name"] for one in manifests if one["kind"] == kind} for kind in KINDS}
    secrets = {one["spec"]["target"]["name"] for one in manifests if one["kind"] == "ExternalSecret"}
    for name, pod in pods(manifests):
        assert pod["serviceAccountName"] in made["ServiceAccount"], name
        asks_the_cluster = {"loan-assets-daemon", "loan-assets-web"}
        assert pod["automountServiceAccountToken"] is (pod["serviceAccountName"] in asks_the_cluster), name
        for volume in pod.get("volumes", []):
            assert volume.get("configMap", {}).get("name", "loan-assets-settings") in made["ConfigMap"], name
            assert volume.get("secret", {}).get("secretName", "loan-assets-tokens") in secrets, name
        for container in pod["containers"]:
            for source in container.get("envFrom", []):
                assert source.get("configMapRef", {}).get("name", "loan-assets-settings") in made["ConfigMap"], name
                assert source.get("secretRef", {}).get("name", "loan-assets-tokens") in secrets, name
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounted == {volume["name"] for volume in pod.get("volumes", [])}, name


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whoever_is_asked_listens_and_may_be_reached(overlay: str) -> None:
    manifests = rendered(K8S / "overlays" / overlay)
    services = {one["metadata"]["name"]: one for one in manifests if one["kind"] == "Service"}
    reached = [one["spec"] for one in manifests if one["kind"] == "NetworkPolicy" and "ingress" in one["spec"]]
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in [
        one["spec"] for one in manifests if one["kind"] == "NetworkPolicy"
    ]
    for name, service in services.items():
        behind = [
            (labels, pod)
            for _, labels, pod in templates(manifests)
            if service["spec"]["selector"].items() <= labels.items()
        ]
        assert len(behind) == 1, name
        ((labels, pod),) = behind
        for port in service["spec"]["ports"]:
            listens = [
                one["containerPort"]
                for container in pod["containers"]
                for one in container["ports"]
                if port["targetPort"] in (one["name"], one["containerPort"])
            ]
            assert len(listens) == 1, name
            let_in = [
                allowed["port"]
                for policy in reached
                if is_selected(policy["podSelector"], labels)
                for rule in policy["ingress"]
                for allowed in rule["ports"]
            ]
            assert listens[0] in let_in, name
    asked = [
        (rule["backend"]["service"]["name"], rule["backend"]["service"]["port"]["name"])
        for one in manifests
        if one["kind"] == "Ingress"
        for host in one["spec"]["rules"]
        for rule in host["http"]["paths"]
    ]
    for monitor in (one["spec"] for one in manifests if one["kind"] == "ServiceMonitor"):
        wanted = monitor["selector"]["matchLabels"].items()
        (name,) = [name for name, one in services.items() if wanted <= one["metadata"]["labels"].items()]
        asked += [(name, endpoint["port"]) for endpoint in monitor["endpoints"]]
    assert asked
    for name, wanted_port in asked:
        assert wanted_port in [port["name"] for port in services[name]["spec"]["ports"]], name


def is_selected(selector: Manifest, labels: dict[str, str]) -> bool:
    expressions = selector.get("matchExpressions", [])
    assert all(one["operator"] == "In" for one in expressions)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(one["key"]) in one["values"] for one in expressions
    )


@needs_kubectl
def test_staging_reaches_nothing_of_productions() -> None:
    def reached(overlay: str) -> set[str]:
        manifests = rendered(K8S / "overlays" / overlay)
        (vault,) = [one["spec"]["provider"]["vault"] for one in manifests if one["kind"] == "SecretStore"]
        (said,) = [one["data"] for one in manifests if one["metadata"]["name"] == "loan-assets-settings"]
        hosts = [rule["host"] for one in manifests if one["kind"] == "Ingress" for rule in one["spec"]["rules"]]
        places = re.findall(r"\w+://[\w.-]+", yaml.safe_dump(said))
        assert places
        return {*places, *hosts, vault["path"], vault["auth"]["kubernetes"]["role"], manifests[0]["metadata"]["name"]}

    assert reached("staging") & reached("production") == set()


KINDS = ("ServiceAccount", "ConfigMap", "Service", "Deployment")


@needs_kubectl
def test_runs_are_launched_on_the_image_that_the_graph_was_read_from(tmp_path: Path) -> None:
    place = tmp_path / "k8s"
    shutil.copytree(K8S, place)
    digest = "sha256:" + "ab" * 32
    for overlay in ("production", "staging"):
        folder = place / "overlays" / overlay
        command = [sys.executable, place / "set_images.py", folder, f"loan-assets=bank/loan-assets@{digest}"]
        subprocess.run([str(part) for part in command], check=True)
        (code,) = [pod["containers"][0] for name, pod in pods(rendered(folder)) if name == "loan-assets-code"]
        variables = {one["name"]: one.get("value") for one in code["env"]}
        assert variables["DAGSTER_CURRENT_IMAGE"] == code["image"] == f"bank/loan-assets@{digest}"


def test_the_pool_s_place_of_a_run_whose_pod_is_gone_is_taken_back() -> None:
    monitoring = yaml.safe_load((ROOT / "deploy/k8s/base/dagster.yaml").read_text())["run_monitoring"]
    assert monitoring["enabled"]
    assert 0 < monitoring["free_slots_after_run_end_seconds"] <= 300


def test_a_cluster_is_told_every_setting_once_and_secrets_apart() -> None:
    told = dict(
        line.split("=", 1)
        for line in (K8S / "base" / "settings.env").read_text().splitlines()
        if re.match(r"\w+=", line)
    )
    secrets = WRITTEN["components/external-secrets/secrets.yaml: ExternalSecret loan-assets-databases"]["spec"]["data"]
    apart = {one["secretKey"] for one in secrets}
    profile = (ROOT / "deploy" / "production.env").read_text()
    names = set(re.findall(r"^(\w+)=", profile, re.MULTILINE))
    assert not apart & set(told)
    assert names - (apart | set(told)) == set()
    online = {name for name in apart if name.endswith("ONLINE")}
    databases = {**dict.fromkeys(apart, "postgresql://elsewhere/db"), **dict.fromkeys(online, "rediss://elsewhere/0")}
    settings = Settings.from_environment({**told, **databases})
    assert (settings.executor, settings.machines) == ("k8s", "/etc/loan_assets/machines.yaml")


@needs_kubectl
def test_the_stack_of_one_machine_differs_in_its_network_only() -> None:
    said = {violation for one in rendered(K8S / "overlays" / ON_ONE_MACHINE) for violation in refused_by_policy(one)}
    assert said == {"the pod shares the machine's: hostNetwork"}


def test_the_operator_is_given_the_rules_that_are_tested() -> None:
    said = subprocess.run(
        [sys.executable, ROOT / "deploy" / "monitoring" / "for_operator.py"], capture_output=True, text=True, check=True
    )
    assert said.stdout == (K8S / "components" / "service-monitor" / "rules.yaml").read_text()


def test_the_inference_service_is_told_what_the_deployment_is() -> None:
    predictor = WRITTEN["components/kserve/inference-service.yaml: InferenceService loan-default"]["spec"]["predictor"]
    for what in ("env", "envFrom", "resources", "securityContext", "volumeMounts"):
        assert predictor["containers"][0][what] == container(DEPLOYMENT)[what], what


@needs_kubectl
def test_gatekeeper_is_given_the_same_policy() -> None:
    by_kind = {manifest["kind"]: manifest for manifest in rendered(POLICY.parent)}
    template = by_kind["ConstraintTemplate"]
    (target,) = template["spec"]["targets"]
    assert target["code"][0]["source"]["rego"] == POLICY.read_text()
    assert set(by_kind) == {"ConstraintTemplate", template["spec"]["crd"]["spec"]["names"]["kind"]}


Change = Callable[[Manifest], object]


def pod_of(manifest: Manifest) -> Manifest:
    return manifest["spec"]["template"]["spec"]  # type: ignore[no-any-return]


def container(manifest: Manifest) -> Manifest:
    return pod_of(manifest)["containers"][0]  # type: ignore[no-any-return]


def another(kind: str, **said: Any) -> Change:
    """A manifest of another kind in the place of the Deployment."""

    def change(manifest: Manifest) -> None:
        manifest.clear()
        manifest.update({"kind": kind, "metadata": {"name": "bad"}, **said})

    return change


def with_more(volume: Manifest) -> Change:
    return lambda manifest: pod_of(manifest)["volumes"].append({"name": "bad", **volume})


ROLE = {"apiVersion": "rbac.authorization.k8s.io/v1"}
BAD: dict[str, tuple[Change, str]] = {
    "an image without a version": (lambda one: container(one).update(image="loan-assets"), "neither a digest"),
    "the latest image": (lambda one: container(one).update(image="loan-assets:latest"), "neither a digest"),
    "root": (lambda one: pod_of(one)["securityContext"].update(runAsUser=0), "runs as root"),
    "whoever the image says": (lambda one: pod_of(one)["securityContext"].pop("runAsUser"), "runs as root"),
    "root in one container only": (
        lambda one: container(one)["securityContext"].update(runAsNonRoot=False),
        "runs as root",
    ),
    "a root file system that can be written": (
        lambda one: container(one)["securityContext"].update(readOnlyRootFilesystem=False),
        "root file system can be written",
    ),
    "more privileges": (
        lambda one: container(one)["securityContext"].pop("allowPrivilegeEscalation"),
        "may gain privileges",
    ),
    "privileged": (lambda one: container(one)["securityContext"].update(privileged=True), "is privileged"),
    "capabilities": (lambda one: container(one)["securityContext"].pop("capabilities"), "keeps capabilities"),
    "a capability": (
        lambda one: container(one)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
        "is given the capability NET_ADMIN",
    ),
    "no seccomp": (lambda one: pod_of(one)["securityContext"].pop("seccompProfile"), "no seccomp profile"),
    "the machine's network": (lambda one: pod_of(one).update(hostNetwork=True), "hostNetwork"),
    "a port of the machine": (lambda one: container(one)["ports"][0].update(hostPort=3000), "takes port 3000"),
    "a folder of the machine": (with_more({"hostPath": {"path": "/etc"}}), "volume bad is a folder of the machine"),
    "a volume without an end": (with_more({"emptyDir": {}}), "volume bad may fill the machine's disk"),
    "no limit of memory": (lambda one: container(one)["resources"]["limits"].pop("memory"), "no limits of memory"),
    "2Gigs": (lambda one: container(one)["resources"]["limits"].update(memory="2Gigs"), "2Gigs is no amount of memory"),
    "half a gigabyte of cpu": (
        lambda one: container(one)["resources"]["requests"].update(cpu="500 m"),
        "500 m is no amount of cpu",
    ),
    "no way to tell that it is ready": (lambda one: container(one).pop("readinessProbe"), "no readinessProbe"),
    "the namespace's own account": (lambda one: pod_of(one).pop("serviceAccountName"), "own service account"),
    "a token of the cluster unasked": (
        lambda one: pod_of(one).pop("automountServiceAccountToken"),
        "the cluster's token without being asked",
    ),
    "a password in a variable": (
        lambda one: container(one)["env"].append({"name": "REDIS_PASSWORD", "value": "hunter2"}),
        "REDIS_PASSWORD holds a secret",
    ),
    "a password in an address": (
        lambda one: container(one)["env"].append({"name": "LOAN_ONLINE", "value": "rediss://:hunter2@redis:6379/0"}),
        "LOAN_ONLINE holds a secret",
    ),
    "a password in a ConfigMap": (
        another("ConfigMap", apiVersion="v1", data={"LOAN_MLFLOW_URI": "postgresql://mlflow:hunter2@db/mlflow"}),
        "LOAN_MLFLOW_URI holds a secret",
    ),
    "a secret in the open": (another("Secret", apiVersion="v1", stringData={"a": "b"}), "a secret is written down"),
    "every right": (
        another("Role", **ROLE, rules=[{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["*"]}]),
        "may do everything: verbs",
    ),
    "secrets through the API": (
        another("Role", **ROLE, rules=[{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]),
        "may get secrets",
    ),
    "steps into pods": (
        another("Role", **ROLE, rules=[{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]}]),
        "may step into pods",
    ),
    "gives itself more": (
        another("Role", **ROLE, rules=[{"apiGroups": ["rbac"], "resources": ["roles"], "verbs": ["escalate"]}]),
        "may escalate",
    ),
    "the cluster's administrator": (
        another("RoleBinding", **ROLE, roleRef={"kind": "ClusterRole", "name": "cluster-admin"}),
        "gives what is said elsewhere",
    ),
    "rights in the whole cluster": (another("ClusterRole", **ROLE, rules=[]), "holds for the whole cluster"),
    "a door to outside": (
        another("Service", apiVersion="v1", spec={"type": "LoadBalancer", "ports": [{"port": 80}]}),
        "open to outside",
    ),
    "requests in the clear": (
        another("Ingress", apiVersion="networking.k8s.io/v1", spec={"rules": []}),
        "takes requests in the clear",
    ),
    "a Job without an end": (
        lambda one: one.update(apiVersion="batch/v1", kind="Job", spec={"template": one["spec"]["template"]}),
        "may run for ever",
    ),
    "a quota of 48Gigs": (
        another("ResourceQuota", apiVersion="v1", spec={"hard": {"requests.memory": "48Gigs"}}),
        "48Gigs is no amount",
    ),
}
UNKNOWN: dict[str, tuple[Change, str]] = {
    "a misspelt field": (lambda one: container(one).update(readinesProbe={}), "readinesProbe"),
    "text for a number": (lambda one: one["spec"].update(replicas="two"), "two"),
    "no selector": (lambda one: one["spec"].pop("selector"), "selector"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_manifest_is_refused_by_the_policy(what: str) -> None:
    change, said = BAD[what]
    manifest = copy.deepcopy(DEPLOYMENT)
    assert refused_by_policy(manifest) == []
    change(manifest)
    refusals = refused_by_policy(manifest)
    assert len(refusals) == 1
    assert said in refusals[0]


@pytest.mark.parametrize("what", UNKNOWN)
def test_a_manifest_that_kubernetes_does_not_know_is_refused(what: str) -> None:
    change, said = UNKNOWN[what]
    manifest = copy.deepcopy(DEPLOYMENT)
    change(manifest)
    for version in VERSIONS:
        assert said in " ".join(refused_by_schema(manifest, version))
