"""What cluster/ hands to other programs is what these take: schemas, linters, our own jobs' flags."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.aws.config import _configure_security_group

from microaction.cli.app import parse_settings
from microaction import config as job_config

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
MANIFESTS = sorted(CLUSTER.glob("kuberay/**/*.yaml"))
KINDS = {"RayCluster": "rayclusters", "RayJob": "rayjobs", "RayCronJob": "raycronjobs"}


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


ALL = [(path.name, document) for path in MANIFESTS for document in documents(path)]
RAY = [(name, document) for name, document in ALL if document["kind"] in KINDS]
PLAIN = [(name, document) for name, document in ALL if document["kind"] not in KINDS]


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A custom resource's schema as the API server takes it: fields that it does not name are errors."""
    schema = dict(schema)
    if "properties" in schema:
        schema["properties"] = {name: strict(each) for name, each in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema["additionalProperties"] = False
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            schema[name] = strict(schema[name])
    return schema


@pytest.mark.parametrize(("name", "document"), RAY, ids=[f"{name}-{document['kind']}" for name, document in RAY])
def test_kuberays_resources_fit_their_definitions(name: str, document: dict[str, Any], shared: Path) -> None:
    definition_file = shared / f"data/kuberay/ray.io_{KINDS[document['kind']]}.yaml"
    if not definition_file.exists():
        pytest.skip("the definitions of KubeRay's resources are not here")
    (definition,) = documents(definition_file)
    version = document["apiVersion"].removeprefix("ray.io/")
    (schema,) = (
        each["schema"]["openAPIV3Schema"] for each in definition["spec"]["versions"] if each["name"] == version
    )
    wanted = strict(schema)
    wanted["properties"]["metadata"] = {"type": "object"}
    jsonschema.validate(document, wanted)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document | {"spec": document["spec"] | {"sheduled": True}}, wanted)


@pytest.mark.parametrize(("name", "document"), PLAIN, ids=[f"{name}-{document['kind']}" for name, document in PLAIN])
def test_kubernetes_own_resources_fit_their_schemas(name: str, document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, "1.32", strict=True)


@pytest.mark.parametrize(("name", "document"), ALL, ids=[f"{name}-{document['kind']}" for name, document in ALL])
def test_nobody_is_root_and_no_secret_is_written_down(name: str, document: dict[str, Any]) -> None:
    for pod in pods_of(document):
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            for variable in container.get("env", ()):
                assert "valueFrom" in variable or "TOKEN" not in variable["name"]
                assert "valueFrom" in variable or "SECRET" not in variable["name"]


@pytest.mark.parametrize(("name", "document"), RAY, ids=[f"{name}-{document['kind']}" for name, document in RAY])
def test_cards_are_for_pods_that_ask_for_them(name: str, document: dict[str, Any]) -> None:
    """The image's variable shows all cards to a container that NVIDIA's runtime starts and the device plugin passes over."""
    assert "ENV NVIDIA_VISIBLE_DEVICES=all" in (CLUSTER / "Containerfile").read_text()
    for pod in pods_of(document):
        (container,) = pod["containers"]
        shown = [each["value"] for each in container.get("env", ()) if each["name"] == "NVIDIA_VISIBLE_DEVICES"]
        assert shown == ([] if "nvidia.com/gpu" in container["resources"]["limits"] else ["void"])


def pods_of(document: Any) -> list[dict[str, Any]]:
    """Every pod's spec inside a document."""
    if isinstance(document, list):
        return [pod for each in document for pod in pods_of(each)]
    if not isinstance(document, dict):
        return []
    own = [document] if "containers" in document else []
    return own + [pod for each in document.values() for pod in pods_of(each)]


def test_there_is_a_pod_to_look_at() -> None:
    num_clusters = 1 + len([document for _, document in RAY if document["kind"] == "RayJob"])
    assert len([pod for _, document in ALL for pod in pods_of(document)]) == 3 * num_clusters + 1


def test_every_job_brings_the_cluster_that_the_standing_one_is() -> None:
    (cluster,) = (document for _, document in RAY if document["kind"] == "RayCluster")
    jobs = [document["spec"] for _, document in RAY if document["kind"] == "RayJob"]
    assert len(jobs) == 3
    for job in jobs:
        assert job["rayClusterSpec"] == cluster["spec"]
        assert job["shutdownAfterJobFinishes"]
        # KubeRay begins a job again on a new cluster: on a standing one it refuses to.
        assert job["backoffLimit"] > 0
        assert "clusterSelector" not in job
    (weekly,) = (document["spec"]["jobTemplate"] for _, document in RAY if document["kind"] == "RayCronJob")
    assert "backoffLimit" not in weekly
    assert weekly["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}


def test_every_port_of_ray_is_kept_inside() -> None:
    (policy,) = (document for _, document in PLAIN if document["kind"] == "NetworkPolicy")
    (cluster,) = (document for _, document in RAY if document["kind"] == "RayCluster")
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    for group in groups:
        labels = group["template"]["metadata"]["labels"]
        assert labels.items() >= policy["spec"]["podSelector"]["matchLabels"].items()
    open_to_others = {
        port["port"] for rule in policy["spec"]["ingress"] for port in rule.get("ports", ()) if "ports" in rule
    }
    assert open_to_others == {8265, 8080}
    assert all(rule["from"] for rule in policy["spec"]["ingress"]), "a rule without a source is open to all"
    for source in (source for rule in policy["spec"]["ingress"] for source in rule["from"]):
        assert source["podSelector"]["matchLabels"]
        # Without a namespace it is the cluster's own; an empty selector would be all of them.
        namespaces = source.get("namespaceSelector", {"matchLabels": {"kubernetes.io/metadata.name": "own"}})
        assert namespaces["matchLabels"].keys() == {"kubernetes.io/metadata.name"}
    assert cluster["spec"]["authOptions"] == {"mode": "token"}


def texts_in(document: Any) -> list[str]:
    if isinstance(document, str):
        return [document]
    parts = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return [text for part in parts for text in texts_in(part)]


def commands() -> list[tuple[str, str]]:
    """All jobs that the page and the manifests start: name and arguments."""
    page = (CLUSTER / "README.md").read_text().replace("\\\n", " ")
    texts = [page, *(text for _, document in ALL for text in texts_in(document))]
    return [command for text in texts for command in re.findall(r"python -m jobs\.(\w+) ([^\n\"'|`]+)", text)]


def test_there_are_commands_of_all_jobs() -> None:
    assert sorted(name for name, _ in commands()) == [
        *("label", "label", "pack", "registry", "registry", "retrain", "retrain", "retrain", "train", "train")
    ]


@pytest.mark.parametrize(("name", "arguments"), commands())
def test_commands_are_what_the_jobs_take(name: str, arguments: str) -> None:
    settings = getattr(job_config, f"{name.capitalize()}Settings")
    parse_settings(settings, arguments.split())
    with pytest.raises(SystemExit):
        parse_settings(settings, [*arguments.split(), "--no-such-flag", "1"])


def retrainings() -> dict[str, str]:
    """The entrypoints of all jobs that retrain, by their files."""
    specs = {name: document["spec"] for name, document in RAY if document["kind"] in ("RayJob", "RayCronJob")}
    entrypoints = {name: spec.get("jobTemplate", spec)["entrypoint"] for name, spec in specs.items()}
    return {name: entrypoint for name, entrypoint in entrypoints.items() if "jobs.retrain" in entrypoint}


def test_there_is_no_other_retraining() -> None:
    """retrain-weekly.yaml's is a script of its own; tests/jobs/test_submission.py runs it."""
    mentioned = {path.name for path in MANIFESTS if "jobs.retrain" in path.read_text()}
    assert mentioned == retrainings().keys() | {"retrain-weekly.yaml"}


@pytest.mark.parametrize("file", retrainings())
@pytest.mark.parametrize(("code", "is_done"), [(0, True), (1, False), (2, False), (3, True)])
def test_a_refused_model_is_no_failed_job(file: str, code: int, is_done: bool, tmp_path: Path) -> None:
    """The entrypoint, run by a shell as Ray does, with a python that ends with this code."""
    (tmp_path / "python").write_text(f'#!/bin/sh\n[ "$2" = jobs.retrain ] && [ "$#" = 15 ] && exit {code}\nexit 99\n')
    (tmp_path / "python").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ended = subprocess.run(retrainings()[file], shell=True, env=env, check=False)
    assert (ended.returncode == 0) == is_done
    assert ended.returncode != 99


def test_the_launchers_file_fits_rays_schema() -> None:
    schema = json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text())
    (config,) = documents(CLUSTER / "cluster.yaml")
    jsonschema.validate(config, schema)
    assert config["head_node_type"] in config["available_node_types"]
    bounds = config["available_node_types"].values()
    assert all(kind["min_workers"] <= kind["max_workers"] <= config["max_workers"] for kind in bounds)


def test_the_launcher_opens_nothing_of_its_own() -> None:
    """Ray makes a security group, with port 22 open to all, for types of nodes that name none; to do so it would ask AWS."""
    (config,) = documents(CLUSTER / "cluster.yaml")
    nodes = {name: kind["node_config"] for name, kind in config["available_node_types"].items()}
    groups = {name: node["SecurityGroupIds"] for name, node in nodes.items()}
    _configure_security_group(config)
    assert {name: node["SecurityGroupIds"] for name, node in nodes.items()} == groups
    assert all(node["SubnetIds"] for node in nodes.values())
    assert config["provider"]["use_internal_ips"] is True


def test_the_container_file_is_clean() -> None:
    hadolint = str(Path(sys.executable).with_name("hadolint"))
    found = subprocess.run([hadolint, CLUSTER / "Containerfile"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    lines = (CLUSTER / "Containerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000"]
    copied = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    assert all((ROOT / name).exists() for name in copied)
