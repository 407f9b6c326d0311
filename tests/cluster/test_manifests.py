"""What cluster/ hands to other programs is what these take: schemas, linters, parsers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import ray.autoscaler
import yaml

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
    assert cluster["spec"]["authOptions"] == {"mode": "token"}


def test_the_launchers_file_fits_rays_schema() -> None:
    schema = json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text())
    (config,) = documents(CLUSTER / "cluster.yaml")
    jsonschema.validate(config, schema)
    assert config["head_node_type"] in config["available_node_types"]
    bounds = config["available_node_types"].values()
    assert all(kind["min_workers"] <= kind["max_workers"] <= config["max_workers"] for kind in bounds)


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


def expressions() -> dict[str, str]:
    """All queries of the dashboard and of the alert rules, by where they stand."""
    found = {}
    for panel in json.loads((CLUSTER / "monitoring/dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            found[f"panel {panel['title']}, {target['refId']}"] = target["expr"]
    (rules,) = documents(CLUSTER / "monitoring/alerts.yaml")
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        found[f"alert {rule['alert']}"] = rule["expr"]
    return found


def names_in(expression: Any) -> set[str]:
    """The metrics that a parsed query reads."""
    if isinstance(expression, promql_parser.VectorSelector):
        return {str(expression.name)}
    parts = (getattr(expression, name, None) for name in ("lhs", "rhs", "expr", "vector_selector"))
    found = set().union(*(names_in(part) for part in parts if part is not None))
    for argument in getattr(expression, "args", None) or ():
        found |= names_in(argument)
    return found


@pytest.mark.parametrize("where", expressions())
def test_queries_parse_and_name_metrics_that_there_are(where: str) -> None:
    names = names_in(promql_parser.parse(expressions()[where].replace("$__rate_interval", "5m")))
    assert names
    code = "".join(path.read_text() for path in (ROOT / "microaction").rglob("*.py"))
    for name in names:
        if name.startswith("ray_microaction_"):
            assert f'"{name.removeprefix("ray_")}"' in code, name
        else:
            assert name.startswith("ray_"), name


def test_there_is_an_alert_for_stalls_failures_and_waiting() -> None:
    alerts = {where.removeprefix("alert ") for where in expressions() if where.startswith("alert ")}
    assert alerts == {"MicroactionLabelingStalled", "MicroactionManyFailures", "MicroactionTrainingWaitsForData"}
