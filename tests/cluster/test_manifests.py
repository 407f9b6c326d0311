"""The files in cluster/ are valid for the programs that read them: schemas, linters, and the flags of our own commands."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.aws.config import _configure_security_group

from microaction.cli import COMMANDS
from microaction.cli.app import parse_settings
from microaction.clips.settings import PackSettings
from microaction.errors import EXIT_CODES, EXIT_INTERRUPTED
from microaction.labeling.settings import LabelSettings
from microaction.registry.settings import RegistrySettings
from microaction.retraining.settings import RetrainSettings
from microaction.settings import CommandSettings
from microaction.training.settings import TrainSettings

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
MANIFESTS = sorted(CLUSTER.glob("kuberay/**/*.yaml"))
KINDS = {"RayCluster": "rayclusters", "RayJob": "rayjobs", "RayCronJob": "raycronjobs"}
SETTINGS: dict[str, type[CommandSettings]] = {
    "label": LabelSettings,
    "pack": PackSettings,
    "registry": RegistrySettings,
    "retrain": RetrainSettings,
    "train": TrainSettings,
}


def documents(path: Path) -> list[dict[str, Any]]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # KubeRay's definitions take seconds in Python
    return [document for document in yaml.load_all(path.read_text(), loader) if document]


ALL = [(path.name, document) for path in MANIFESTS for document in documents(path)]
RAY = [(name, document) for name, document in ALL if document["kind"] in KINDS]
PLAIN = [(name, document) for name, document in ALL if document["kind"] not in KINDS]


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a custom resource's schema as the API server applies it: fields that it does not name are errors."""
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
def test_kuberay_resources_fit_their_definitions(name: str, document: dict[str, Any], shared: Path) -> None:
    definition_file = shared / f"data/kuberay/ray.io_{KINDS[document['kind']]}.yaml"
    if not definition_file.exists():
        pytest.skip("KubeRay's resource definitions are not in ../shared")
    (definition,) = documents(definition_file)
    version = document["apiVersion"].removeprefix("ray.io/")
    (schema,) = (
        each["schema"]["openAPIV3Schema"] for each in definition["spec"]["versions"] if each["name"] == version
    )
    expected = strict(schema)
    expected["properties"]["metadata"] = {"type": "object"}
    validator = jsonschema.Draft202012Validator(expected)  # does not spend seconds on checking the definition itself
    validator.validate(document)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(document | {"spec": document["spec"] | {"sheduled": True}})


@pytest.mark.parametrize(("name", "document"), PLAIN, ids=[f"{name}-{document['kind']}" for name, document in PLAIN])
def test_kubernetes_resources_fit_their_schemas(name: str, document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, "1.32", strict=True)


@pytest.mark.parametrize(("name", "document"), ALL, ids=[f"{name}-{document['kind']}" for name, document in ALL])
def test_pods_are_not_root_and_hold_no_secrets(name: str, document: dict[str, Any]) -> None:
    for pod in pods_of(document):
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            for variable in container.get("env", ()):
                assert "valueFrom" in variable or "TOKEN" not in variable["name"]
                assert "valueFrom" in variable or "SECRET" not in variable["name"]


@pytest.mark.parametrize(("name", "document"), RAY, ids=[f"{name}-{document['kind']}" for name, document in RAY])
def test_only_pods_that_request_cards_get_them(name: str, document: dict[str, Any]) -> None:
    """The image's variable gives all cards to containers that NVIDIA's runtime starts and the device plugin does not manage."""
    assert "ENV NVIDIA_VISIBLE_DEVICES=all" in (CLUSTER / "Containerfile").read_text()
    for pod in pods_of(document):
        (container,) = pod["containers"]
        visible = [each["value"] for each in container.get("env", ()) if each["name"] == "NVIDIA_VISIBLE_DEVICES"]
        assert visible == ([] if "nvidia.com/gpu" in container["resources"]["limits"] else ["void"])


def pods_of(document: Any) -> list[dict[str, Any]]:
    """Return the spec of every pod in a document."""
    if isinstance(document, list):
        return [pod for each in document for pod in pods_of(each)]
    if not isinstance(document, dict):
        return []
    own = [document] if "containers" in document else []
    return own + [pod for each in document.values() for pod in pods_of(each)]


def test_every_pod_is_found() -> None:
    num_clusters = 1 + len([document for _, document in RAY if document["kind"] == "RayJob"])
    assert len([pod for _, document in ALL for pod in pods_of(document)]) == 3 * num_clusters + 1


def test_every_rayjob_has_the_spec_of_the_permanent_cluster() -> None:
    (cluster,) = (document for _, document in RAY if document["kind"] == "RayCluster")
    jobs = [document["spec"] for _, document in RAY if document["kind"] == "RayJob"]
    assert len(jobs) == 3
    for job in jobs:
        assert job["rayClusterSpec"] == cluster["spec"]
        assert job["shutdownAfterJobFinishes"]
        # KubeRay retries a job on a new cluster; on a permanent one it refuses to.
        assert job["backoffLimit"] > 0
        assert "clusterSelector" not in job
    (weekly,) = (document["spec"]["jobTemplate"] for _, document in RAY if document["kind"] == "RayCronJob")
    assert "backoffLimit" not in weekly
    assert weekly["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}


def test_rays_ports_are_reachable_from_the_cluster_only() -> None:
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
    assert all(rule["from"] for rule in policy["spec"]["ingress"]), "a rule without a source allows everybody"
    for source in (source for rule in policy["spec"]["ingress"] for source in rule["from"]):
        assert source["podSelector"]["matchLabels"]
        # Without a namespace selector it is the cluster's own namespace; an empty selector would be all of them.
        namespaces = source.get("namespaceSelector", {"matchLabels": {"kubernetes.io/metadata.name": "own"}})
        assert namespaces["matchLabels"].keys() == {"kubernetes.io/metadata.name"}
    assert cluster["spec"]["authOptions"] == {"mode": "token"}


def texts_in(document: Any) -> list[str]:
    if isinstance(document, str):
        return [document]
    parts = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return [text for part in parts for text in texts_in(part)]


def commands() -> list[tuple[str, str]]:
    """Return subcommand and arguments of all commands that the README and the manifests run."""
    page = (CLUSTER / "README.md").read_text().replace("\\\n", " ")
    texts = [page, *(text for _, document in ALL for text in texts_in(document))]
    pattern = rf"(?<![\w/-])microaction ({'|'.join(COMMANDS)}) ([^\n\"'|`]+)"
    return [command for text in texts for command in re.findall(pattern, text)]


def test_all_commands_are_found() -> None:
    assert sorted(name for name, _ in commands()) == [
        *("label", "label", "pack", "registry", "registry", "retrain", "retrain", "retrain", "train", "train")
    ]


@pytest.mark.parametrize(("name", "arguments"), commands())
def test_arguments_of_commands_are_valid(name: str, arguments: str) -> None:
    parse_settings(SETTINGS[name], arguments.split())
    with pytest.raises(SystemExit):
        parse_settings(SETTINGS[name], [*arguments.split(), "--no-such-flag", "1"])


def test_no_manifest_needs_a_working_directory() -> None:
    """The image has the package and its command, and not the folder jobs/."""
    for path in [*CLUSTER.glob("**/*.yaml"), CLUSTER / "README.md"]:
        assert "python -m jobs" not in path.read_text(), path


def test_the_readme_lists_all_exit_codes() -> None:
    """Ctrl-C cannot reach a submitted job."""
    rows = re.findall(r"^\| (\d+) \|", (CLUSTER / "README.md").read_text(), re.MULTILINE)
    assert [int(code) for code in rows] == sorted(EXIT_CODES.keys() - {EXIT_INTERRUPTED})


def retrainings() -> dict[str, str]:
    """Return the entrypoints of all jobs that retrain, by file."""
    specs = {name: document["spec"] for name, document in RAY if document["kind"] in ("RayJob", "RayCronJob")}
    entrypoints = {name: spec.get("jobTemplate", spec)["entrypoint"] for name, spec in specs.items()}
    return {name: entrypoint for name, entrypoint in entrypoints.items() if "microaction retrain" in entrypoint}


def test_all_retrainings_are_found() -> None:
    """retrain-weekly.yaml has a script of its own; tests/cli/test_submission.py runs it."""
    mentioned = {path.name for path in MANIFESTS if "microaction retrain" in path.read_text()}
    assert mentioned == retrainings().keys() | {"retrain-weekly.yaml"}


@pytest.mark.parametrize("file", retrainings())
@pytest.mark.parametrize(("code", "is_done"), [(0, True), (1, False), (2, False), (3, True), (130, False)])
def test_a_rejected_candidate_is_not_a_failed_job(file: str, code: int, is_done: bool, tmp_path: Path) -> None:
    """Runs the entrypoint in a shell, as Ray does, with a command that exits with this code."""
    command = tmp_path / "microaction"
    command.write_text(f'#!/bin/sh\n[ "$1" = retrain ] && [ "$#" = 14 ] && exit {code}\nexit 99\n')
    command.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(retrainings()[file], shell=True, env=env, check=False)
    assert (done.returncode == 0) == is_done
    assert done.returncode != 99


def test_the_launchers_configuration_fits_rays_schema() -> None:
    schema = json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text())
    (config,) = documents(CLUSTER / "cluster.yaml")
    jsonschema.validate(config, schema)
    assert config["head_node_type"] in config["available_node_types"]
    bounds = config["available_node_types"].values()
    assert all(kind["min_workers"] <= kind["max_workers"] <= config["max_workers"] for kind in bounds)


def test_the_launcher_creates_no_security_group() -> None:
    """For node types without one, Ray creates a security group with port 22 open to all; to do so it would call AWS."""
    (config,) = documents(CLUSTER / "cluster.yaml")
    nodes = {name: kind["node_config"] for name, kind in config["available_node_types"].items()}
    groups = {name: node["SecurityGroupIds"] for name, node in nodes.items()}
    _configure_security_group(config)
    assert {name: node["SecurityGroupIds"] for name, node in nodes.items()} == groups
    assert all(node["SubnetIds"] for node in nodes.values())
    assert config["provider"]["use_internal_ips"] is True


def containerfile() -> list[str]:
    return (CLUSTER / "Containerfile").read_text().splitlines()


def copied_paths() -> list[str]:
    """Return the paths of the project that the image is built from."""
    copies = [line.split() for line in containerfile() if line.startswith("COPY ") and "--from" not in line]
    return [word for words in copies for word in words[1:-1]]


def test_hadolint_finds_nothing_in_the_containerfile() -> None:
    hadolint = str(Path(sys.executable).with_name("hadolint"))
    done = subprocess.run([hadolint, CLUSTER / "Containerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert [line for line in containerfile() if line.startswith("USER")] == ["USER 1000"]
    assert all((ROOT / name).exists() for name in copied_paths())


def test_the_image_has_the_command() -> None:
    """It installs the package, whose console script is the command, and not the folder jobs/."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["scripts"]["microaction"] == "microaction.cli:main"
    needed = {"pyproject.toml", "microaction", project["project"]["readme"], *project["project"]["license-files"]}
    copied = {Path(path) for path in copied_paths()}
    assert all(copied & {Path(path), *Path(path).parents} for path in needed)
    assert "jobs" not in copied_paths()
    assert any("/bin/microaction --version" in line for line in containerfile()), "the build checks it"
