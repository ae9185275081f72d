"""The Prometheus and Grafana files: what they ask for is what a study exports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from asd_ray.study import gauges

METRICS = Path(__file__).parents[2] / "cluster" / "metrics"
DASHBOARD: dict[str, Any] = json.loads((METRICS / "grafana" / "dashboards" / "asd_ray.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
TRIAL = {"study", "trial", "repeat", "SessionName"}


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Name, as Prometheus gets it, -> labels of every gauge of a study, with the session that Ray adds."""
    found: dict[str, set[str]] = {}

    def gauge(name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        found[f"ray_{name}"] = {*tag_keys, "SessionName"}

    monkeypatch.setattr(gauges, "Gauge", gauge)
    gauges.StudyGauges("s")
    return found


def asked(expression: str) -> dict[str, set[str]]:
    """Metric -> labels that a query selects by."""
    found = re.findall(r"(ray_\w+)\{([^}]*)\}", expression)
    assert found, expression
    return {name: set(re.findall(r"(\w+)=", selectors)) for name, selectors in found}


def test_panels_ask_for_metrics_and_labels_that_a_study_exports(exported: dict[str, set[str]]) -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            for metric, labels in asked(target["expr"]).items():
                assert labels <= exported[metric], panel["title"]
            [grouped] = re.findall(r"max by \(([^)]*)\)", target["expr"])
            names = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert names == set(grouped.split(", ")), panel["title"]  # else two lines have one name


def test_every_metric_of_a_study_is_in_a_panel(exported: dict[str, set[str]]) -> None:
    shown = {metric for panel in PANELS for target in panel["targets"] for metric in asked(target["expr"])}
    assert shown == set(exported)


def test_what_ended_trials_came_to_is_found_although_ray_no_longer_exports_it() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            ended = bool(re.search(r"ray_asd_ray_(objective|auc|pauc)\b", target["expr"]))
            assert ("last_over_time" in target["expr"]) == ended == target.get("instant", False), panel["title"]


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24  # Grafana's columns


def test_every_variable_in_a_query_exists_and_ray_sets_two_of_them() -> None:
    used = {name for panel in PANELS for target in panel["targets"] for name in re.findall(r"\$(\w+)", target["expr"])}
    assert used - {"__range"} <= set(VARIABLES)
    assert {"study", "trial"} <= used
    assert {"datasource", "SessionName"} <= set(VARIABLES)  # the Ray dashboard's Metrics tab passes these
    for name, variable in VARIABLES.items():
        if name != "datasource":
            assert variable["query"]["query"].endswith(f", {name})")
            assert re.search(r"ray_asd_ray_", variable["query"]["query"])


def test_grafana_finds_the_dashboard_and_the_data_source_that_ray_asks_for() -> None:
    provisioning = METRICS / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert (source["name"], source["type"], source["isDefault"]) == ("Prometheus", "prometheus", True)
    [provider] = yaml.safe_load((provisioning / "dashboards" / "asd_ray.yml").read_text())["providers"]
    assert provider["type"] == "file"
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", DASHBOARD["uid"])  # what Grafana accepts


def test_prometheus_reads_rays_own_list_of_nodes() -> None:
    config = yaml.safe_load((METRICS / "prometheus.yml").read_text())
    [job] = config["scrape_configs"]
    [discovery] = job["file_sd_configs"]
    assert discovery["files"] == ["/tmp/ray/prom_metrics_service_discovery.json"]  # as Ray's documentation names it
    # Ray keeps a gauge's value for two of its report intervals (10 s each): a slower scrape would miss some.
    assert config["global"]["scrape_interval"] == "10s"


def test_rays_metrics_tab_can_be_told_to_embed_the_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = pytest.importorskip("ray.dashboard.modules.metrics.grafana_dashboard_factory")  # no public name
    monkeypatch.setenv("RAY_GRAFANA_DATA_DASHBOARD_UID", DASHBOARD["uid"])
    assert factory.generate_data_grafana_dashboard()[1] == DASHBOARD["uid"]
    assert "RAY_GRAFANA_DATA_DASHBOARD_UID=asd_ray" in (METRICS / "README.md").read_text(encoding="utf-8")
