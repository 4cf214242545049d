"""The chart's Grafana dashboards, written down as tables of panels: `python -m dev.dashboards` makes the JSON.

Queries, units and sizes are here; what a kind of panel needs besides is in `_OPTIONS`. The JSON imports without edits:
its data source is a variable. `--check` fails when a file differs.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dev.paths import CHECKOUT

FOLDER = CHECKOUT / "charts" / "dpe" / "files" / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24  # columns of Grafana's grid

_OPERATOR = 'job="dpe-operator"'
_CHOSEN = 'namespace=~"$namespace",iteration=~"$iteration"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture."""

    title: str
    kind: str
    """timeseries, stat, bargauge or table."""
    queries: tuple[tuple[str, str], ...]
    """Query and legend, each."""
    unit: str = "short"
    width: int = 8
    most: float | None = None
    """Upper end of the scale."""
    about: str = ""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page: headings, each with its panels."""

    name: str
    title: str
    about: str
    rows: dict[str, tuple[Panel, ...]]
    variables: tuple[dict[str, Any], ...]


def of_operator(metric: str, more: str = "") -> str:
    """A selector of the operator's series of the chosen iterations."""
    return f"{metric}{{{_OPERATOR},{_CHOSEN}{more}}}"


def of_stages(metric: str, more: str = "") -> str:
    """A selector of the stage pods' series of the chosen iterations."""
    return f'{metric}{{job="dpe-stages",{_CHOSEN}{more}}}'


def of_vllm(metric: str) -> str:
    """A selector of vLLM's own series of the chosen iterations."""
    return f'{metric}{{job="dpe-vllm",{_CHOSEN}}}'


def rate(selector: str, by: str) -> str:
    """Per second, summed."""
    return f"sum by ({by}) (rate({selector}[$__rate_interval]))"


def quantile(share: float, histogram: str, by: str = "") -> str:
    """A quantile over the rate interval."""
    return f"histogram_quantile({share}, sum by (le{by}) (rate({histogram}[$__rate_interval])))"


def _training(title: str, unit: str, *names: str) -> Panel:
    queries = tuple(
        (f"max by (namespace, iteration) ({of_stages(f'dpe_training_{name}')})", f"{{{{iteration}}}} {name}")
        for name in names
    )
    return Panel(title, "timeseries", queries, unit)


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "label": name.capitalize(),
        "datasource": DATASOURCE,
        "query": query,
        "refresh": 2,  # when the time range changes
        "sort": 2,  # descending: the newest of a numbered series comes first
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all", "selected": True},
        "options": [],
        "hide": 0,
        "skipUrlSync": False,
    }


_DATASOURCE = {
    "name": "datasource",
    "type": "datasource",
    "label": "Prometheus",
    "query": "prometheus",
    "current": {},
    "options": [],
    "hide": 0,
    "skipUrlSync": False,
}
_NAMESPACE = _variable("namespace", f"label_values(dpe_iteration_phase{{{_OPERATOR}}}, namespace)")
_ITERATION = _variable(
    "iteration", f'label_values(dpe_iteration_phase{{{_OPERATOR},namespace=~"$namespace"}}, iteration)'
)
_PRICE = {
    "name": "gpu_hour_price",
    "type": "textbox",
    "label": "Price of a GPU hour",
    "query": "2",
    "current": {"text": "2", "value": "2", "selected": True},
    "options": [],
    "hide": 0,
    "skipUrlSync": False,
}

_MACRO = f"avg by (namespace, iteration, model) ({of_operator('dpe_iteration_accuracy')})"
_ATTEMPTS = f"round(sum by (stage, outcome) (increase(dpe_stage_attempts_total{{{_OPERATOR}}}[$__range]))) > 0"
_AFTER = ',model="after"'
_GPU_HOURS = f"sum by (namespace, iteration) ({of_operator('dpe_iteration_gpu_seconds')}) / 3600"
_DURATION = " / ".join(
    f"sum by (stage) (dpe_stage_duration_seconds_{part}{{{_OPERATOR}}})" for part in ("sum", "count")
)

OVERVIEW = Dashboard(
    "overview",
    "DPE: iterations",
    "All DPEIterations: where they are, what they brought and cost, and how the operator is doing.",
    {
        "Iterations": (
            Panel(
                "By phase",
                "stat",
                (
                    (f"sum by (phase) (dpe_iterations{{{_OPERATOR}}})", "{{phase}}"),
                    (f"sum(dpe_iterations_queued{{{_OPERATOR}}})", "queued"),
                ),
                width=24,
            ),
            Panel(
                "Iterations",
                "table",
                ((f"{of_operator('dpe_iteration_phase')} == 1", "{{namespace}}/{{iteration}} {{phase}}"),),
                width=8,
            ),
            Panel(
                "Accuracy before and after",
                "bargauge",
                ((_MACRO, "{{iteration}} {{model}}"),),
                "percentunit",
                most=1,
                about="Macro average over the categories of the first benchmark, or of the probe.",
            ),
            Panel(
                "Progress of running stages",
                "timeseries",
                ((of_operator("dpe_stage_progress_ratio"), "{{iteration}} {{stage}}"),),
                "percentunit",
                most=1,
            ),
        ),
        "Stages": (
            Panel(
                "Mean duration of finished stages",
                "bargauge",
                (
                    (
                        _DURATION,
                        "{{stage}}",
                    ),
                ),
                "s",
            ),
            Panel(
                "Ended attempts",
                "bargauge",
                (
                    (
                        _ATTEMPTS,
                        "{{stage}} {{outcome}}",
                    ),
                ),
                about="In the time range. Failed attempts are charged, disrupted ones are not; both cost GPU time.",
            ),
            Panel(
                "Samples",
                "bargauge",
                ((f"sum by (outcome) ({of_operator('dpe_iteration_samples')})", "{{outcome}}"),),
                about="Candidates of the generation by what became of them.",
            ),
        ),
        "Cost": (
            Panel("GPU hours by iteration", "bargauge", ((_GPU_HOURS, "{{iteration}}"),), "h"),
            Panel(
                "GPU hours by stage and pool",
                "bargauge",
                (
                    (
                        f"sum by (stage, pool) (increase(dpe_gpu_seconds_total{{{_OPERATOR}}}[$__range])) / 3600 > 0",
                        "{{stage}} {{pool}}",
                    ),
                ),
                "h",
                about="Of attempts that ended in the time range.",
            ),
            Panel(
                "Tokens by model server",
                "timeseries",
                (
                    (
                        f"sum by (endpoint, direction) (increase(dpe_tokens_total{{{_OPERATOR}}}[$__range]))",
                        "{{endpoint}} {{direction}}",
                    ),
                ),
                about="Counted when a stage ends.",
            ),
        ),
        "Operator": (
            Panel("Up", "timeseries", ((f"up{{{_OPERATOR}}}", "{{pod}}"),), width=6, most=1),
            Panel(
                "Not looked after",
                "timeseries",
                ((f"max by (pod) (dpe_stale_iterations{{{_OPERATOR}}})", "{{pod}}"),),
                width=6,
            ),
            Panel(
                "One look at an iteration",
                "timeseries",
                tuple(
                    (quantile(q, f"dpe_reconcile_duration_seconds_bucket{{{_OPERATOR}}}"), f"p{q * 100:.0f}")
                    for q in (0.5, 0.99)
                ),
                "s",
                width=6,
            ),
            Panel(
                "Errors",
                "timeseries",
                (
                    (rate(f"dpe_reconcile_errors_total{{{_OPERATOR}}}", "pod"), "looks at iterations"),
                    (rate(f"dpe_store_errors_total{{{_OPERATOR}}}", "kind"), "object store {{kind}}"),
                ),
                "reqps",
                width=6,
            ),
            Panel(
                "Requests to the API server",
                "timeseries",
                ((rate(f"dpe_api_requests_total{{{_OPERATOR}}}", "method"), "{{method}}"),),
                "reqps",
                width=6,
            ),
        ),
    },
    (_DATASOURCE, _NAMESPACE, _ITERATION),
)

ITERATION = Dashboard(
    "iteration",
    "DPE: one iteration",
    "Stages, accuracy by category, samples, cost, model servers and training curves of the chosen iterations.",
    {
        "Stages": (
            Panel("Phase", "stat", ((f"{of_operator('dpe_iteration_phase')} == 1", "{{iteration}}: {{phase}}"),)),
            Panel(
                "Progress",
                "timeseries",
                ((of_operator("dpe_stage_progress_ratio"), "{{iteration}} {{stage}}"),),
                "percentunit",
                most=1,
            ),
            Panel(
                "Finished items",
                "timeseries",
                (
                    (
                        f"max by (iteration, stage, attempt) ({of_stages('dpe_stage_items_done')})",
                        "{{stage}} {{attempt}}",
                    ),
                ),
                about="As the stage's own pod counts them: questions, samples or steps.",
            ),
        ),
        "Accuracy": (
            Panel(
                "By category",
                "bargauge",
                ((of_operator("dpe_iteration_accuracy"), "{{category}} {{model}} {{iteration}}"),),
                "percentunit",
                most=1,
            ),
            Panel(
                "By category over rounds",
                "timeseries",
                ((of_operator("dpe_iteration_accuracy", _AFTER), "{{category}} {{iteration}}"),),
                "percentunit",
                most=1,
                about="Choose the iterations of one series: each adds its lines when it ends.",
            ),
            Panel("Macro average", "timeseries", ((_MACRO, "{{iteration}} {{model}}"),), "percentunit", most=1),
        ),
        "Samples and cost": (
            Panel(
                "Samples",
                "bargauge",
                (
                    (
                        f"sum by (iteration, outcome) ({of_operator('dpe_iteration_samples')})",
                        "{{iteration}} {{outcome}}",
                    ),
                ),
                width=6,
            ),
            Panel(
                "Candidates per second",
                "timeseries",
                ((rate(of_stages("dpe_samples_total"), "outcome"), "{{outcome}}"),),
                width=6,
            ),
            Panel("GPU hours", "stat", ((_GPU_HOURS, "{{iteration}}"),), "h", width=4),
            Panel("Price of the GPUs", "stat", ((f"{_GPU_HOURS} * $gpu_hour_price", "{{iteration}}"),), width=4),
            Panel("Tokens", "stat", ((of_operator("dpe_iteration_tokens"), "{{iteration}}"),), width=4),
        ),
        "Model servers": (
            Panel(
                "vLLM: tokens per second",
                "timeseries",
                (
                    (rate(of_vllm("vllm:generation_tokens_total"), "stage"), "{{stage}} generated"),
                    (rate(of_vllm("vllm:prompt_tokens_total"), "stage"), "{{stage}} read"),
                ),
            ),
            Panel(
                "vLLM: requests",
                "timeseries",
                (
                    (f"sum by (stage) ({of_vllm('vllm:num_requests_running')})", "{{stage}} running"),
                    (f"sum by (stage) ({of_vllm('vllm:num_requests_waiting')})", "{{stage}} waiting"),
                ),
            ),
            Panel(
                "vLLM: time to the first token",
                "timeseries",
                tuple(
                    (
                        quantile(q, of_vllm("vllm:time_to_first_token_seconds_bucket"), ", stage"),
                        f"{{{{stage}}}} p{q * 100:.0f}",
                    )
                    for q in (0.5, 0.95)
                ),
                "s",
            ),
            Panel(
                "vLLM: KV cache in use",
                "timeseries",
                ((f"max by (stage) ({of_vllm('vllm:kv_cache_usage_perc')})", "{{stage}}"),),
                "percentunit",
                most=1,
            ),
            Panel(
                "Requests to models",
                "timeseries",
                ((rate(of_stages("dpe_requests_total"), "stage, endpoint"), "{{stage}} {{endpoint}}"),),
                "reqps",
            ),
            Panel(
                "Requests without an answer",
                "timeseries",
                (
                    (
                        f"{rate(of_stages('dpe_request_errors_total'), 'stage, endpoint')}"
                        f" or {rate(of_stages('dpe_requests_total'), 'stage, endpoint')} * 0",
                        "{{stage}} {{endpoint}}",
                    ),
                ),
                "reqps",
            ),
        ),
        "Training": (
            _training("Reward", "short", "reward", "reward_std"),
            _training("Loss", "short", "loss"),
            _training("Entropy", "short", "entropy"),
            _training("Groups without a gradient, completions cut off", "percentunit", "zero_std_share", "cut_share"),
            _training("Gradient norm", "short", "grad_norm"),
            _training("Learning rate", "sci", "learning_rate"),
            _training("Completion length", "short", "completion_length"),
            _training("Seconds per step", "s", "seconds_per_step"),
            Panel(
                "Tokens per second",
                "timeseries",
                ((rate(of_stages("dpe_tokens_total"), "stage, endpoint, direction"), "{{stage}} {{direction}}"),),
                about="Of the stages that ask a model.",
            ),
        ),
    },
    (_DATASOURCE, _NAMESPACE, _ITERATION, _PRICE),
)

DASHBOARDS = (OVERVIEW, ITERATION)

_REDUCE = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "reduceOptions": _REDUCE,
        "orientation": "auto",
        "textMode": "auto",
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
    },
    "bargauge": {
        "reduceOptions": _REDUCE,
        "orientation": "horizontal",
        "displayMode": "basic",
        "valueMode": "color",
        "showUnfilled": True,
        "minVizWidth": 0,
        "minVizHeight": 10,
    },
    "table": {"showHeader": True, "footer": {"show": False, "reducer": [], "countRows": False}},
}


_OF_THE_TARGET = ("Time", "Value", "__name__", "job", "instance", "pod", "container", "endpoint", "service")


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    instant = panel.kind != "timeseries"
    defaults: dict[str, Any] = {"unit": panel.unit, "color": {"mode": "palette-classic"}}
    if panel.most is not None:
        defaults |= {"min": 0, "max": panel.most}
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 5,
            "showPoints": "auto",
            "spanNulls": False,
        }
    out: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": _height(panel)},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _OPTIONS[panel.kind],
        "targets": [
            {
                "refId": chr(ord("A") + n),
                "datasource": DATASOURCE,
                "expr": query,
                "legendFormat": legend,
                "instant": instant,
                "range": not instant,
                "format": "table" if panel.kind == "table" else "time_series",
            }
            for n, (query, legend) in enumerate(panel.queries)
        ],
    }
    if panel.kind == "table":
        hidden = dict.fromkeys(_OF_THE_TARGET, True)
        out["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden}}]
    return out


def _height(panel: Panel) -> int:
    return 4 if panel.width == WIDTH else 8


def _panels(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    number, y = 0, 0
    for title, panels in dashboard.rows.items():
        number += 1
        place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        y, x = y + 1, 0
        for n, panel in enumerate(panels):
            number += 1
            yield _panel(panel, number, x, y)
            x += panel.width
            if x >= WIDTH or n == len(panels) - 1:
                x, y = 0, y + _height(panel)


def text(dashboard: Dashboard) -> str:
    """The dashboard's JSON."""
    whole = {
        "uid": f"dpe-{dashboard.name}",
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["dpe"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,  # one crosshair for all panels
        "schemaVersion": 38,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": list(dashboard.variables)},
        "annotations": {"list": []},
        "links": [
            {
                "title": "DPE",
                "type": "dashboards",
                "tags": ["dpe"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "",
                "tooltip": "",
            }
        ],
        "panels": list(_panels(dashboard)),
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def filled(query: str, *, namespace: str = ".*", iteration: str = ".*", interval: str = "1m", span: str = "1h") -> str:
    """A panel's query with Grafana's variables filled in, as Prometheus gets it."""
    values = {
        "$__rate_interval": interval,
        "$__range": span,
        "$namespace": namespace,
        "$iteration": iteration,
        "$gpu_hour_price": "2",
    }
    for name, value in values.items():
        query = query.replace(name, value)
    return query


def main() -> int:
    """Write the files, or say which differs: exit code 1."""
    parser = argparse.ArgumentParser(prog="dev.dashboards", description="The chart's Grafana dashboards.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs")
    check, stale = parser.parse_args().check, 0
    for dashboard in DASHBOARDS:
        path = FOLDER / f"{dashboard.name}.json"
        if path.exists() and path.read_text() == text(dashboard):
            continue
        stale += 1
        if check:
            print(f"{path.relative_to(CHECKOUT)} differs from dev/dashboards.py: run `make generate`", file=sys.stderr)
        else:
            path.write_text(text(dashboard))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
