"""What watches the service asks for metrics that there are, in queries that can be read."""

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.exposition import exposed
from tests.test_docs import metrics_in_the_docs

DEPLOY = Path(__file__).parent.parent / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "winnow.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [
    *((panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]),
    *((rule["alert"], rule["expr"]) for rule in RULES),
]
ANY_SERIES = {"job", "instance", "le"}


@pytest.mark.parametrize("query", [query for _, query in QUERIES], ids=[name for name, _ in QUERIES])
def test_a_query_can_be_read_and_names_metrics_and_labels_that_there_are(query: str):
    promql_parser.parse(query.replace("$__rate_interval", "5m"))
    kinds, labels = exposed(), metrics_in_the_docs()
    asked = set(re.findall(r"\b(?:winnow|process|python)_\w+", query)) - {"python_version"}
    names = {name: base(name, kinds) for name in asked}
    assert set(names.values()) <= kinds.keys(), names
    known = ANY_SERIES.union(*(labels[name] for name in names.values()))
    grouped = [
        name.strip() for group in re.findall(r"(?:by|on) \(([^)]*)\)", query) for name in group.split(",")
    ]
    matched = re.findall(r"[{,] ?(\w+)(?:=|!=|=~|!~)\"", query)
    assert set(grouped + matched) <= known


def base(name: str, kinds: dict[str, str]) -> str:
    """The histogram that a series is of, or the name itself."""
    histogram = re.sub(r"_(bucket|sum|count)$", "", name)
    return histogram if kinds.get(histogram) == "histogram" else name


def test_every_metric_of_ours_is_on_the_dashboard():
    shown = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    assert [name for name in exposed() if name.startswith("winnow_") and name not in shown] == []


def test_panels_have_places_and_numbers_of_their_own():
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))
    cells = [cell for panel in DASHBOARD["panels"] for cell in covered(panel["gridPos"])]
    assert len(cells) == len(set(cells))
    assert max(column for column, _ in cells) < 24


def covered(place: dict[str, int]) -> list[tuple[int, int]]:
    columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
    return [(column, row) for column in columns for row in rows]


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_says_how_urgent_it_is_and_what_has_happened(rule: dict[str, Any]):
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]


def test_prometheus_reads_the_rules_that_there_are():
    scraped = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    assert all((DEPLOY / name).exists() for name in scraped["rule_files"])
    assert {job["job_name"] for job in scraped["scrape_configs"]} == {"winnow", "winnow-worker"}
