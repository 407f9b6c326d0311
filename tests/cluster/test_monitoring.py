"""The queries of the dashboard and the alerts parse, name existing metrics, and keep clusters apart."""

import json
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "cluster/monitoring"


def expressions() -> dict[str, str]:
    """Return all queries of the dashboard and of the alert rules, by panel or alert."""
    found = {}
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            found[f"panel {panel['title']}, {target['refId']}"] = target["expr"]
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        found[f"alert {rule['alert']}"] = rule["expr"]
    return found


def parts_of(expression: Any) -> list[Any]:
    """Return a parsed query and all its parts."""
    parts = [getattr(expression, name, None) for name in ("lhs", "rhs", "expr", "vector_selector")]
    parts += getattr(expression, "args", None) or ()
    return [expression] + [inner for part in parts if part is not None for inner in parts_of(part)]


def parsed(where: str) -> list[Any]:
    return parts_of(promql_parser.parse(expressions()[where].replace("$__rate_interval", "5m")))


@pytest.mark.parametrize("where", expressions())
def test_no_query_mixes_clusters(where: str) -> None:
    """Ray labels every metric with its cluster's SessionName; without it a run that works would hide one that stalls."""
    aggregations = [part for part in parsed(where) if isinstance(part, promql_parser.AggregateExpr)]
    assert aggregations
    for each in aggregations:
        assert each.modifier is not None
        assert each.modifier.type == promql_parser.AggModifierType.By
        assert "SessionName" in each.modifier.labels


@pytest.mark.parametrize("where", expressions())
def test_queries_parse_and_name_existing_metrics(where: str) -> None:
    names = {str(part.name) for part in parsed(where) if isinstance(part, promql_parser.VectorSelector)}
    assert names
    code = "".join(path.read_text() for path in (ROOT / "microaction").rglob("*.py"))
    for name in names:
        if name.startswith("ray_microaction_"):
            assert f'"{name.removeprefix("ray_")}"' in code, name
        else:
            assert name.startswith("ray_"), name


def test_stalls_failures_and_waiting_have_alerts() -> None:
    alerts = {where.removeprefix("alert ") for where in expressions() if where.startswith("alert ")}
    assert alerts == {"MicroactionLabelingStalled", "MicroactionManyFailures", "MicroactionTrainingWaitsForData"}
