"""What dashboards are written in: panels and pages, selectors of our series, and Grafana's variables."""

from dataclasses import dataclass
from typing import Any

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24  # columns of Grafana's grid

OPERATOR = 'job="dpe-operator"'
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
    return f"{metric}{{{OPERATOR},{_CHOSEN}{more}}}"


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


CHOICE_OF_SOURCE = {
    "name": "datasource",
    "type": "datasource",
    "label": "Prometheus",
    "query": "prometheus",
    "current": {},
    "options": [],
    "hide": 0,
    "skipUrlSync": False,
}
NAMESPACE = _variable("namespace", f"label_values(dpe_iteration_phase{{{OPERATOR}}}, namespace)")
ITERATION = _variable(
    "iteration", f'label_values(dpe_iteration_phase{{{OPERATOR},namespace=~"$namespace"}}, iteration)'
)

MACRO = f"avg by (namespace, iteration, model) ({of_operator('dpe_iteration_accuracy')})"
GPU_HOURS = f"sum by (namespace, iteration) ({of_operator('dpe_iteration_gpu_seconds')}) / 3600"
