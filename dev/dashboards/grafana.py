"""A page as JSON in Grafana's model; what a kind of panel needs besides its table is in `_OPTIONS`."""

import json
from collections.abc import Iterator
from typing import Any

from dev.dashboards.tables import DATASOURCE, WIDTH, Dashboard, Panel

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


_OF_THE_TARGET = (
    "Time",
    "Value",
    "__name__",
    "job",
    "instance",
    "pod",
    "container",
    "endpoint",
    "service",
    "dpe_release",
)


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
