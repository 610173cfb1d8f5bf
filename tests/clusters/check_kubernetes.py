"""The Kubernetes manifests: every file is used, every overlay renders, every object is valid, and what they promise holds.

Overlays are rendered by `kustomize` or `kubectl kustomize` where there is one; without, the files are checked one by one and the rendered
overlays are not, which is said. Objects are held against Kubernetes' schemas by the package kubernetes-validate where it is
installed (tests/contracts/requirements.txt). Exit status 77: skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

try:
    import yaml
except ImportError:
    print("skipped: no Python package yaml")
    sys.exit(77)

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "configs" / "kubernetes"
OVERLAYS = ("base", "overlays/cpu", "overlays/gpu", "overlays/replicas")
OWN_TYPES = {"ServiceMonitor"}  # of operators; Kubernetes itself has no schema for them
Object = dict[str, Any]


def read(path: Path) -> list[Object]:
    """The objects of a file."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def files_of(kustomization: Path) -> list[Path]:
    """Files and folders that a kustomization names; each must be there."""
    found = read(kustomization)[0]
    names = [*found.get("resources", []), *found.get("components", []), *(one["path"] for one in found.get("patches", []))]
    for one in found.get("configMapGenerator", []):
        names += one.get("files", [])
    out = [(kustomization.parent / name).resolve() for name in names]
    for path in out:
        assert path.exists(), f"{kustomization.relative_to(ROOT)} names {path.name}, which is not there"
    return out


def check_files() -> int:
    """Nothing is named that is not there, nothing lies there that is not named, and every patch changes an object of the base."""
    kustomizations = sorted(FOLDER.rglob("kustomization.yaml"))
    named = {path for one in kustomizations for path in files_of(one)}
    every = {path.resolve() for path in FOLDER.rglob("*") if path.is_file()} - {path.resolve() for path in kustomizations}
    assert not every - named, f"used by nobody: {sorted(str(path) for path in every - named)}"
    for one in kustomizations:
        assert read(one)[0]["kind"] == ("Component" if one.parent.parent.name == "components" else "Kustomization"), one
    return len(every) + len(kustomizations)


def renderer() -> list[str] | None:
    """The command that renders a folder."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        done = subprocess.run(["kubectl", "kustomize", str(FOLDER / "base")], capture_output=True, check=False)
        return ["kubectl", "kustomize"] if done.returncode == 0 else None
    return None


def render(command: list[str], overlay: Path) -> list[Object]:
    """The objects of an overlay."""
    done = subprocess.run([*command, str(overlay)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, f"{overlay}: {done.stderr}"
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def validate(objects: list[Object], where: str) -> int:
    """Against Kubernetes' schemas, unknown fields refused; how many were. 0 without the package."""
    try:
        import kubernetes_validate
    except ImportError:
        return 0
    checked = [one for one in objects if one["kind"] not in OWN_TYPES]
    for one in checked:
        try:
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
        except Exception as error:
            raise AssertionError(f"{where}: {one['kind']} {one['metadata']['name']}: {error}") from None
    return len(checked)


def of(objects: list[Object], kind: str) -> list[Object]:
    """Objects of a kind."""
    return [one for one in objects if one["kind"] == kind]


def check_pod(deployment: Object) -> None:
    """Not root, a root file system that is read-only, nothing allowed that is not needed, and no token of the cluster."""
    name, pod = deployment["metadata"]["name"], deployment["spec"]["template"]["spec"]
    outer = pod["securityContext"]
    assert outer["runAsNonRoot"] is True and outer["runAsUser"] > 0 and outer["seccompProfile"]["type"] == "RuntimeDefault", name
    assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False, name
    for container in pod["containers"]:
        inner = container["securityContext"]
        assert inner["readOnlyRootFilesystem"] is True and inner["allowPrivilegeEscalation"] is False, name
        assert inner["capabilities"]["drop"] == ["ALL"], name
        assert "limits" in container.get("resources", {}) or deployment["spec"]["replicas"] == 1, name
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes, name
        text = " ".join(map(str, [container.get("args"), container.get("command")]))
        assert "api-key" not in text, f"{name}: a key in a command line"
    assert deployment["spec"]["selector"]["matchLabels"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items(), name


def check_server(objects: list[Object]) -> None:
    """Probes, draining and what hangs on names."""
    deployment = next(one for one in of(objects, "Deployment") if one["metadata"]["name"] == "dtrnet")
    pod = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/ready", "readiness": "/ready", "liveness": "/health"}, paths
    settings = {one["metadata"]["name"]: one["data"] for one in of(objects, "ConfigMap")}[container["envFrom"][0]["configMapRef"]["name"]]
    sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    needed = sleep + int(settings["DTRNET_SHUTDOWN_DELAY"]) + int(settings["DTRNET_DRAIN_TIMEOUT"])
    assert pod["terminationGracePeriodSeconds"] > needed, (
        f"a pod is killed after {pod['terminationGracePeriodSeconds']} s, draining takes {needed}"
    )
    claims = {one["metadata"]["name"] for one in of(objects, "PersistentVolumeClaim")}
    assert {volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume} == claims
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    for budget in of(objects, "PodDisruptionBudget"):
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels, "the budget is of other pods"


def check_services(objects: list[Object]) -> None:
    """Every Service finds pods with ports of those names; every monitor one Service."""
    pods = [one["spec"]["template"] for one in of(objects, "Deployment")]
    for service in of(objects, "Service"):
        chosen = [pod for pod in pods if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()]
        assert len(chosen) == 1, f"Service {service['metadata']['name']} selects {len(chosen)} kinds of pods"
        ports = {port["name"] for container in chosen[0]["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports, service["metadata"]["name"]
    for monitor in of(objects, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        chosen = [one for one in of(objects, "Service") if wanted <= one["metadata"].get("labels", {}).items()]
        assert len(chosen) == 1, f"{len(chosen)} Services would be scraped, each pod as often"
        named = {port["name"] for port in chosen[0]["spec"]["ports"]}
        assert {one["port"] for one in monitor["spec"]["endpoints"]} <= named


def check_overlay(name: str, objects: list[Object]) -> None:
    """What each is for."""
    deployment = next(one for one in of(objects, "Deployment") if one["metadata"]["name"] == "dtrnet")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    limits = container.get("resources", {}).get("limits", {})
    gpu = name in ("overlays/gpu", "overlays/replicas")
    assert (limits.get("nvidia.com/gpu") == "1") == gpu, name
    tags = {"base": "dtrnet", "overlays/cpu": "dtrnet:cpu", "overlays/gpu": "dtrnet:cuda", "overlays/replicas": "dtrnet:cuda"}
    assert container["image"] == tags[name], container["image"]
    assert deployment["spec"]["replicas"] == (4 if name == "overlays/replicas" else 1), name


def check_keys(command: list[str]) -> None:
    """The component that gives keys, on top of the base: by a file of a Secret."""
    with tempfile.TemporaryDirectory(prefix="dtrnet-kubernetes-") as name:
        base, keys = (os.path.relpath(FOLDER / part, os.path.realpath(name)) for part in ("base", "components/keys"))
        (Path(name) / "kustomization.yaml").write_text(yaml.safe_dump({"resources": [base], "components": [keys]}))
        objects = render(command, Path(name))
    pod = of(objects, "Deployment")[0]["spec"]["template"]["spec"]
    file = next(one["value"] for one in pod["containers"][0]["env"] if one["name"] == "DTRNET_API_KEY_FILE")
    mount = next(one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "keys")
    secret = next(one["secret"] for one in pod["volumes"] if one["name"] == "keys")
    assert file == f"{mount['mountPath']}/keys" and mount["readOnly"] and secret["secretName"] == "dtrnet-keys"
    check_pod(of(objects, "Deployment")[0])
    print(f"components/keys: {len(objects)} objects, {validate(objects, 'keys')} of them held against schemas")


def check_haproxy() -> None:
    """The balancer of the pods is that of configs/haproxy but for where its servers are."""
    ours, theirs = (
        path.read_text().splitlines() for path in (ROOT / "configs/haproxy/haproxy.cfg", FOLDER / "overlays/replicas/haproxy.cfg")
    )
    kept = [line for line in ours if not line.startswith(("#", "    server "))]
    rest = [line for line in theirs if line in kept]
    assert [line for line in kept if line not in theirs] == [] and len(rest) >= len(kept), "haproxy.cfg of the overlay lacks lines"


def main() -> int:
    """All checks; what could not be checked is said."""
    files = check_files()
    check_haproxy()
    command = renderer()
    single = [one for path in sorted(FOLDER.glob("**/*.yaml")) if path.name != "kustomization.yaml" for one in read(path)]
    whole = [one for one in single if one["kind"] != "Deployment" or "selector" in one["spec"]]  # the others are patches
    valid = validate(whole, "files")
    print(
        f"{files} files; {valid} objects in files valid"
        if valid
        else f"{files} files; no package kubernetes-validate, schemas are not checked"
    )
    if command is None:
        print("no kustomize and no kubectl: overlays are not rendered")
        return 0
    for name in OVERLAYS:
        objects = render(command, FOLDER / name)
        for deployment in of(objects, "Deployment"):
            check_pod(deployment)
        check_server(objects)
        check_services(objects)
        check_overlay(name, objects)
        print(f"{name}: {len(objects)} objects, {validate(objects, name)} of them held against schemas")
    check_keys(command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
