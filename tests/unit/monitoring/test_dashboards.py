"""Grafana's dashboards: their form, and that Prometheus understands every query and somebody exports every metric."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dev import dashboards
from tests.unit.monitoring.test_rules import RULES, promtool

from dpe_jobs import client, runtime
from dpe_jobs.generation import run as generation
from dpe_jobs.training.metrics import StepMetrics
from dpe_operator import metrics

WHOLE = {d.name: json.loads((dashboards.FOLDER / f"{d.name}.json").read_text()) for d in dashboards.DASHBOARDS}
VLLM = {  # of vLLM 0.32, as its source names them
    "vllm:generation_tokens_total",
    "vllm:prompt_tokens_total",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:kv_cache_usage_perc",
}
OF_PROMETHEUS = {"up", "process_start_time_seconds"}


def panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in WHOLE[name]["panels"] if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """Every panel's query as it is sent, by dashboard, panel and letter."""
    return {
        f"{name}/{panel['title']}/{target['refId']}": dashboards.filled(target["expr"])
        for name in WHOLE
        for panel in panels(name)
        for target in panel["targets"]
    }


@pytest.mark.parametrize("dashboard", dashboards.DASHBOARDS, ids=lambda d: d.name)
def test_the_json_is_what_the_tables_say(dashboard: dashboards.Dashboard) -> None:
    path = dashboards.FOLDER / f"{dashboard.name}.json"
    assert path.read_text() == dashboards.text(dashboard), "run `python -m dev.dashboards`"


def lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """What `before` says and `after` does not; `after` may say more."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after[key], f"{path}.{key}") if key in after else [f"{path}.{key}"]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(one, other, f"{path}[{number}]")
    elif before != after:
        yield path


@pytest.mark.parametrize("name", WHOLE)
def test_nothing_is_lost_on_the_way_through_grafanas_own_model(name: str) -> None:
    """Grafana's SDK drops what its schema does not know, and fails on what has another type."""
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import dashboard as model

    plugins.register_default_plugins()

    def through(document: dict[str, Any]) -> Any:
        return json.loads(json.dumps(model.Dashboard.from_json(document), cls=JSONEncoder))

    assert list(lost(WHOLE[name], through(WHOLE[name]))) == []
    misspelt = WHOLE[name] | {"titel": "x"}
    assert list(lost(misspelt, through(misspelt))) == [".titel"]


@pytest.mark.parametrize("name", WHOLE)
def test_a_dashboard_imports_without_edits(name: str) -> None:
    whole = WHOLE[name]
    assert whole["uid"] == f"dpe-{name}"
    assert "id" not in whole
    assert "__inputs" not in whole
    sources = [v for v in whole["templating"]["list"] if v["type"] == "datasource"]
    assert [(v["name"], v["query"]) for v in sources] == [("datasource", "prometheus")]
    asked = [p["datasource"] for p in panels(name)] + [t["datasource"] for p in panels(name) for t in p["targets"]]
    asked += [v["datasource"] for v in whole["templating"]["list"] if v["type"] == "query"]
    assert {d["uid"] for d in asked} == {"${datasource}"}
    known = {v["name"] for v in whole["templating"]["list"]} | {"__rate_interval", "__range"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(whole))) - {"__all"} <= known


@pytest.mark.parametrize("name", WHOLE)
def test_panels_have_titles_and_places_of_their_own(name: str) -> None:
    everything = WHOLE[name]["panels"]
    assert len({p["id"] for p in everything}) == len(everything)
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= dashboards.WIDTH, panel["title"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
    titles = [p["title"] for p in panels(name)]
    assert len(set(titles)) == len(titles)


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": query} for n, query in enumerate(queries().values())]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(path))


def exported() -> set[str]:
    """Names of the series that the operator, the stages, vLLM and Prometheus itself bring."""
    found = VLLM | OF_PROMETHEUS
    for module in (metrics, client, runtime, generation):
        for metric in vars(module).values():
            if hasattr(metric, "_labelnames") and hasattr(metric, "_name"):
                name = metric._name
                kinds = {
                    "counter": [name, f"{name}_total"],
                    "histogram": [f"{name}_{s}" for s in ("bucket", "sum", "count")],
                }
                found |= set(kinds.get(metric._type, [name]))
    found |= {f"dpe_training_{field}" for field in StepMetrics.model_fields} | {"dpe_training_seconds_per_step"}
    return found


def test_every_metric_that_a_panel_or_an_alert_asks_for_is_exported_by_somebody() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    texts = [*queries().values(), *(rule["expr"] for rule in rules)]
    asked = {n for text in texts for n in re.findall(r"([a-z_][a-z0-9_:]*)\{", text)}
    assert len(asked) > 25
    assert asked <= exported() | recorded


def test_every_metric_of_the_operator_is_shown_or_watched() -> None:
    names = {m._name for m in vars(metrics).values() if hasattr(m, "_labelnames") and hasattr(m, "_name")}
    texts = [*queries().values(), *(r["expr"] for g in yaml.safe_load(RULES.read_text())["groups"] for r in g["rules"])]
    found = [asked for text in texts for asked in re.findall(r'(\w+)\{[^}]*job="dpe-operator"', text)]
    assert names - {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in found} == set()
