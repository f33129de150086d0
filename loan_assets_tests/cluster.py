"""A cluster of one machine: the part of Kubernetes' API that dagster-k8s speaks, and its Jobs as processes.

Here: who may ask for what (the Roles as they are shipped), what is admitted (Kubernetes' schema and our policy), and
pods as processes with mounts, memory and an end of their own. Not here: images, networks, nodes, or anything that
keeps a Deployment up. It is a test double: what it shows is that dagster-k8s, our `dagster.yaml` and our Roles fit
together, and not how a cluster behaves.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from filelock import FileLock
from flask import Flask, Response, abort, jsonify, request
from kubernetes.utils.quantity import parse_quantity
from werkzeug.serving import make_server

from loan_assets_tests.deploy.admission import VERSIONS, refused_by_policy, refused_by_schema

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
Manifest = dict[str, Any]


def why_not() -> str | None:
    """Why pods cannot be run here; None where they can."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return "pods are given mounts of their own, which needs root and util-linux"
    made = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return None if made.returncode == 0 else "this machine does not let root make mounts"


@dataclass
class Pod:
    """A container as a process, with its manifest as the API tells of it."""

    manifest: Manifest
    folder: Path
    # Several threads ask it for its end, which psutil's own Popen does not stand: it may tell one of them 0.
    process: subprocess.Popen[bytes] | None = None
    reason: str = ""
    since: float = field(default_factory=time.time)

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def container(self) -> Manifest:
        (only,) = self.manifest["spec"]["containers"]
        return only  # type: ignore[no-any-return]

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def is_over(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def code(self) -> int:
        """As a container's: 128 and the signal, where one ended it."""
        if self.process is None:
            return 1
        code = self.process.poll()
        assert code is not None, f"{self.name} still runs"
        return 128 - code if code < 0 else code

    def end(self, grace: float) -> None:
        """Ask it to end, and end it."""
        if self.process is None or self.is_over():
            return
        self.process.terminate()
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill("Error")

    def kill(self, reason: str) -> None:
        """End it as a node that goes, or the kernel, does."""
        self.reason = self.reason or reason
        if self.process is not None:
            with suppress(ProcessLookupError):  # it ended by itself meanwhile
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def memory(self) -> int:
        """Bytes that it and its children hold."""
        if self.process is None or self.is_over():
            return 0
        held = 0
        try:
            own = psutil.Process(self.process.pid)
            for one in (own, *own.children(recursive=True)):
                held += one.memory_info().rss
        except psutil.NoSuchProcess:
            pass  # it ended while it was looked at
        return held

    def told(self) -> Manifest:
        """As the API tells of it now."""
        state: Manifest = {"waiting": {"reason": self.reason or "ContainerCreating"}}
        phase = "Pending"
        if self.is_over():
            done = self.code() == 0
            phase = "Succeeded" if done else "Failed"
            reason = "Completed" if done else self.reason or "Error"
            state = {"terminated": {"exitCode": self.code(), "reason": reason, "finishedAt": now()}}
        elif self.process is not None:
            phase, state = "Running", {"running": {"startedAt": at(self.since)}}
        status = {
            "name": self.container["name"],
            "image": self.container["image"],
            "imageID": "",
            "ready": phase == "Running",
            "restartCount": 0,
            "state": state,
        }
        return {**self.manifest, "status": {"phase": phase, "containerStatuses": [status]}}


class Cluster:
    """The API at `port`, over HTTPS; Jobs become processes below `folder` in the image's environment.

    Args:
        folder: where pods' volumes and logs are.
        roles: the file of ServiceAccounts, Roles and RoleBindings that is enforced.
        config_maps: the texts of each ConfigMap by its keys; secrets likewise.
        image: the variables that an image would set, PATH among them.
        contents: the folders that an image would hold.
    """

    def __init__(
        self,
        folder: Path,
        roles: Path,
        config_maps: Mapping[str, Mapping[str, str]],
        secrets: Mapping[str, Mapping[str, str]],
        image: Mapping[str, str],
        contents: Sequence[Path],
    ) -> None:
        # Where pods mount their volumes is this machine's, and is cleared away in the end: one cluster at a time.
        self._alone = FileLock(Path(tempfile.gettempdir()) / "loan-assets-cluster.lock")
        self._alone.acquire()
        self.namespace = "loan-assets"
        self.pods: dict[str, Pod] = {}
        self.jobs: dict[str, Manifest] = {}
        self.refused: list[str] = []
        self.asked: set[tuple[str, str, str]] = set()
        self._folder, self._image, self._contents = folder, dict(image), contents
        self.secrets = dict(secrets)
        self._config_maps = config_maps
        self._rights = dict(rights_in(roles))
        self._lock, self._over = threading.RLock(), threading.Event()
        self._made: list[Path] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._account = folder / "account"
        context = certified(self._account)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", self.port, self._routes(), threaded=True, ssl_context=context)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        self._over.set()
        self._server.shutdown()
        for pod in self.pods.values():
            pod.end(5)
        for folder in reversed(self._made):
            folder.rmdir()
        self._alone.release()

    def inside(self, command: Sequence[str], account: str, volumes: Manifest, log: Path) -> subprocess.Popen[bytes]:
        """A process as in a pod of the cluster: with its account's token, and with a pod's volumes mounted.

        Args:
            account: whose token; nobody's where it is empty.
            volumes: the folder or file that is mounted at each path.
        """
        token = self._folder / f"account-{account}"
        if account and not token.exists():
            shutil.copytree(self._account, token)
            (token / "token").write_text(account)
            (token / "namespace").write_text(self.namespace)
        given = {str(ACCOUNT): str(token)} if account else {}
        script = " && ".join([*self._mounts({**given, **volumes}), 'exec "$@"'])
        environment = {
            **self._image,
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.port),
        }
        with log.open("ab") as target:
            return subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", script, "pod", *command],
                env=environment,
                stdout=target,
                stderr=target,
                start_new_session=True,
                cwd="/",
            )

    def _mounts(self, volumes: Mapping[str, str]) -> Iterator[str]:
        """The commands that give a process mounts of its own: nothing but the volumes can be written.

        What the image holds stays visible where a volume is mounted over it.
        """
        yield from ("mount --make-rprivate /", "mount --bind / /")
        # A volume of /tmp hides the others' sources and comes last.
        for path in sorted(volumes, key=lambda path: (self._folder.is_relative_to(path), path)):
            inside = [place for place in self._contents if place.is_relative_to(path)]
            for place in inside:
                Path(volumes[path], place.relative_to(path)).mkdir(parents=True, exist_ok=True)
            if not any(path.startswith(f"{other}/") for other in volumes):
                self._make(Path(path))
            yield f"exec 3<'{path}'" if inside else "true"
            yield f"mount --bind '{volumes[path]}' '{path}'"
            for place in inside:
                yield f"mount --no-canonicalize --bind '/proc/self/fd/3/{place.relative_to(path)}' '{place}'"
        yield "mount -o remount,bind,ro /"

    def _make(self, path: Path) -> None:
        """A folder of this machine to mount at, taken away in the end."""
        missing = [one for one in (path, *path.parents) if not one.exists()]
        for one in reversed(missing):
            one.mkdir()
            self._made.append(one)

    # What pods are made of.

    def begin(self, owner: str, template: Manifest) -> Pod:
        """A pod of a Job's or a Deployment's template; nobody begins it again when it is over."""
        name = f"{owner}-{uuid.uuid4().hex[:5]}"
        labels = {**template["metadata"].get("labels", {}), "job-name": owner}
        about = {
            "name": name,
            "namespace": self.namespace,
            "labels": labels,
            "uid": str(uuid.uuid4()),
            "creationTimestamp": now(),
        }
        folder = self._folder / "pods" / name
        folder.mkdir(parents=True)
        pod = Pod({"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": template["spec"]}, folder)
        pod.log.touch()
        self.pods[name] = pod
        try:
            volumes, variables = self._volumes_of(pod), dict(self._variables_of(pod))
        except LookupError as missing:
            pod.reason = "CreateContainerConfigError"
            pod.log.write_text(f"{missing}\n")
            return pod
        command = [*pod.container.get("command", []), *pod.container.get("args", [])]
        said = [f"{key}={value}" for key, value in variables.items()]
        spec = pod.manifest["spec"]
        account = spec["serviceAccountName"] if spec.get("automountServiceAccountToken", True) else ""
        pod.process = self.inside(["env", *said, *command], account, volumes, pod.log)
        return pod

    def _variables_of(self, pod: Pod) -> Iterator[tuple[str, str]]:
        yield "HOSTNAME", pod.name
        for source in pod.container.get("envFrom", []):
            yield from self._held(source.get("configMapRef"), source.get("secretRef")).items()
        for one in pod.container.get("env", []):
            asked = one.get("valueFrom", {})
            if "fieldRef" in asked:
                yield one["name"], pod.manifest["metadata"][asked["fieldRef"]["fieldPath"].partition(".")[2]]
            elif asked:
                reference = asked.get("configMapKeyRef") or asked["secretKeyRef"]
                yield one["name"], self._held(asked.get("configMapKeyRef"), asked.get("secretKeyRef"))[reference["key"]]
            else:
                yield one["name"], one.get("value", "")

    def _held(self, config_map: Manifest | None, secret: Manifest | None) -> Mapping[str, str]:
        reference, held = (config_map, self._config_maps) if config_map else (secret, self.secrets)
        assert reference is not None
        if reference["name"] not in held:
            raise LookupError(f'{"configmap" if config_map else "secret"} "{reference["name"]}" not found')
        return held[reference["name"]]

    def _volumes_of(self, pod: Pod) -> dict[str, str]:
        there = {one["name"]: one for one in pod.manifest["spec"].get("volumes", [])}
        for name, volume in there.items():
            (pod.folder / "volumes" / name).mkdir(parents=True)
            if "emptyDir" in volume:
                continue
            given = volume.get("configMap"), {"name": volume["secret"]["secretName"]} if "secret" in volume else None
            for key, text in self._held(*given).items():
                (pod.folder / "volumes" / name / key).write_text(text)
        mounts = {}
        for mount in pod.container.get("volumeMounts", []):
            source = pod.folder / "volumes" / mount["name"] / mount.get("subPath", "")
            mounts[mount["mountPath"]] = str(source)
            # A file that is mounted into another volume needs a place there.
            for path, other in list(mounts.items()):
                if mount["mountPath"].startswith(f"{path}/"):
                    target = Path(other) / Path(mount["mountPath"]).relative_to(path)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.touch()
        return mounts

    def _watch(self) -> None:
        """End what holds more memory than it may, or has run longer."""
        while not self._over.wait(0.2):
            for pod in list(self.pods.values()):
                limit = pod.container.get("resources", {}).get("limits", {}).get("memory")
                if limit and pod.memory() > parse_quantity(limit):
                    pod.kill("OOMKilled")
                job = self.jobs.get(pod.manifest["metadata"]["labels"]["job-name"])
                longest = job["spec"].get("activeDeadlineSeconds") if job else None
                if longest and not pod.is_over() and time.time() - pod.since > longest:
                    pod.end(5)

    def pods_of(self, job: str) -> list[Pod]:
        return [pod for pod in self.pods.values() if pod.manifest["metadata"]["labels"]["job-name"] == job]

    # The API.

    def _told(self, job: Manifest) -> Manifest:
        pods = self.pods_of(job["metadata"]["name"])
        over = [pod for pod in pods if pod.is_over()]
        well = sum(pod.code() == 0 for pod in over)
        status: Manifest = {"active": len(pods) - len(over), "succeeded": well, "failed": len(over) - well}
        if over:
            status["conditions"] = [{"type": "Complete" if well else "Failed", "status": "True"}]
        return {**job, "status": {"startTime": job["metadata"]["creationTimestamp"], **status}}

    def _allow(self, group: str, resource: str, verb: str) -> None:
        account = request.headers.get("authorization", "").partition(" ")[2]
        self.asked.add((account, resource, verb))
        if (group, resource, verb) not in self._rights.get(account, set()):
            self.refused.append(f"{account} may not {verb} {resource}")
            abort(Response(refusal(403, "Forbidden", f"{account} cannot {verb} resource {resource}"), 403))

    def _routes(self) -> Flask:
        app = Flask(__name__)
        jobs, pods = "/apis/batch/v1/namespaces/<ns>/jobs", "/api/v1/namespaces/<ns>/pods"

        @app.get("/version")
        def version() -> Any:
            major, minor = VERSIONS[0].split(".")
            return jsonify(major=major, minor=minor, gitVersion=f"v{VERSIONS[0]}.0")

        @app.post(jobs)
        def create(ns: str) -> Any:
            self._allow("batch", "jobs", "create")
            job = request.get_json()
            bad = [*refused_by_schema(job, VERSIONS[0]), *refused_by_policy(job)]
            if bad:
                self.refused += bad
                return Response(refusal(422, "Invalid", "; ".join(bad)), 422)
            name = job["metadata"]["name"]
            with self._lock:
                if name in self.jobs:
                    return Response(refusal(409, "AlreadyExists", f'jobs "{name}" already exists'), 409)
                job["metadata"] |= {"namespace": ns, "uid": str(uuid.uuid4()), "creationTimestamp": now()}
                self.jobs[name] = job
                self.begin(name, job["spec"]["template"])
            return jsonify(self._told(job))

        @app.get(jobs)
        def list_jobs(ns: str) -> Any:
            self._allow("batch", "jobs", "list")
            return listed("batch/v1", "JobList", [self._told(one) for one in self.jobs.values() if is_meant(one)])

        @app.get(f"{jobs}/<name>")
        def read_job(ns: str, name: str) -> Any:
            self._allow("batch", "jobs", "get")
            return jsonify(self._told(self.jobs[name])) if name in self.jobs else gone("jobs", name)

        @app.get(f"{jobs}/<name>/status")
        def read_status(ns: str, name: str) -> Any:
            self._allow("batch", "jobs/status", "get")
            return jsonify(self._told(self.jobs[name])) if name in self.jobs else gone("jobs", name)

        @app.delete(f"{jobs}/<name>")
        def delete_job(ns: str, name: str) -> Any:
            # As the API does by default, it leaves the pods to whoever deletes those.
            self._allow("batch", "jobs", "delete")
            return jsonify(status="Success") if self.jobs.pop(name, None) else gone("jobs", name)

        @app.get(pods)
        def list_pods(ns: str) -> Any:
            self._allow("", "pods", "list")
            found = [pod.told() for pod in list(self.pods.values())]
            return listed("v1", "PodList", [one for one in found if is_meant(one)])

        @app.get(f"{pods}/<name>")
        def read_pod(ns: str, name: str) -> Any:
            self._allow("", "pods", "get")
            return jsonify(self.pods[name].told()) if name in self.pods else gone("pods", name)

        @app.get(f"{pods}/<name>/log")
        def read_log(ns: str, name: str) -> Any:
            self._allow("", "pods/log", "get")
            return Response(self.pods[name].log.read_bytes(), mimetype="text/plain")

        @app.delete(f"{pods}/<name>")
        def delete_pod(ns: str, name: str) -> Any:
            self._allow("", "pods", "delete")
            pod = self.pods.get(name)
            if pod is None:
                return gone("pods", name)
            grace = pod.manifest["spec"].get("terminationGracePeriodSeconds", 30)
            threading.Thread(target=pod.end, args=(grace,), daemon=True).start()
            return jsonify(pod.told())

        @app.get("/api/v1/namespaces/<ns>/events")
        def list_events(ns: str) -> Any:
            self._allow("", "events", "list")
            return listed("v1", "EventList", [])

        return app


def rights_in(roles: Path) -> Iterator[tuple[str, set[tuple[str, str, str]]]]:
    """What each account may do: the group of the API, the resource, the verb."""
    manifests = list(yaml.safe_load_all(roles.read_text()))
    by_role = {
        one["metadata"]["name"]: {
            (group, resource, verb)
            for rule in one["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
        for one in manifests
        if one["kind"] == "Role"
    }
    for one in manifests:
        if one["kind"] == "RoleBinding":
            for subject in one["subjects"]:
                yield subject["name"], by_role[one["roleRef"]["name"]]


def certified(folder: Path) -> tuple[str, str]:
    """A certificate for this machine and its key, in the folder that pods see as `ca.crt`."""
    folder.mkdir(parents=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cluster of one machine")])
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(minutes=5))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(here, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    kept = folder.with_name("server.key")
    private = serialization.PrivateFormat.PKCS8
    kept.write_bytes(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
    return str(folder / "ca.crt"), str(kept)


def is_meant(manifest: Manifest) -> bool:
    """Whether the selectors of the request mean it."""
    about = manifest["metadata"]
    for one in filter(None, request.args.get("labelSelector", "").split(",")):
        key, _, value = one.replace("==", "=").partition("=")
        if about.get("labels", {}).get(key) != value:
            return False
    for one in filter(None, request.args.get("fieldSelector", "").split(",")):
        key, _, value = one.replace("==", "=").partition("=")
        if about.get(key.partition(".")[2]) != value:
            return False
    return True


def listed(version: str, kind: str, items: list[Manifest]) -> Any:
    return jsonify(apiVersion=version, kind=kind, metadata={"resourceVersion": "1"}, items=items)


def gone(resource: str, name: str) -> Response:
    return Response(refusal(404, "NotFound", f'{resource} "{name}" not found'), 404)


def refusal(code: int, reason: str, message: str) -> bytes:
    body: bytes = jsonify(
        kind="Status", apiVersion="v1", status="Failure", reason=reason, message=message, code=code
    ).data
    return body


def now() -> str:
    return at(time.time())


def at(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
