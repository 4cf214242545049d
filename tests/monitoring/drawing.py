"""A picture of a dashboard from the queries of its panels: Grafana itself is in none of the registries."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from dev import dashboards
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from tests.monitoring.scraping import Prometheus, Query, panel_queries

FACTORS = {"percentunit": (100.0, " %"), "short": (1.0, "")}
SHOWN = 14  # lines or bars of a panel


def _named(legend: str, labels: Mapping[str, str]) -> str:
    for name, value in labels.items():
        legend = legend.replace(f"{{{{{name}}}}}", value)
    return legend


def _draw(axes: Axes, prometheus: Prometheus, queries: list[Query], start: float, end: float) -> None:
    kind, (factor, unit) = queries[0].kind, FACTORS.get(queries[0].unit, (1.0, f" {queries[0].unit}"))
    axes.set_title(queries[0].panel, loc="left", fontsize=9)
    rows: list[tuple[str, Any]] = []
    for query in queries:
        if kind == "timeseries":
            rows += [(_named(query.legend, labels), v) for labels, v in prometheus.over(query.expression, start, end)]
        else:
            rows += [(_named(query.legend, labels), v) for labels, v in prometheus.query(query.expression, end)]
    if not rows:
        axes.text(0.5, 0.5, "No data", ha="center", transform=axes.transAxes)
        return
    if kind == "timeseries":
        for name, values in rows[:SHOWN]:
            axes.plot(
                [t - start for t, _ in values], [v * factor for _, v in values], label=name, marker=".", ms=2, lw=1
            )
        axes.legend(fontsize=5, ncols=2)
        axes.set_xlim(0, end - start)
        axes.set_ylabel(unit.strip(), fontsize=6)
    elif kind == "bargauge":
        shown = sorted(rows)[:SHOWN]
        axes.barh([n for n, _ in shown], [v * factor for _, v in shown])
        for number, (_, value) in enumerate(shown):
            axes.text(value * factor, number, f"{value * factor:.3g}{unit}", fontsize=6, va="center")
        axes.invert_yaxis()
    else:
        axes.axis("off")
        text = "\n".join(
            f"{name}: {value * factor:.4g}{unit if kind == 'stat' else ''}" for name, value in sorted(rows)
        )
        axes.text(0, 0.95, text, fontsize=8, va="top", transform=axes.transAxes)
    axes.tick_params(labelsize=6)


def draw(prometheus: Prometheus, namespace: str, iteration: str, start: float, end: float, folder: Path) -> list[Path]:
    """One PNG per dashboard, panels in the order of the page, three to a row; times in seconds since `start`."""
    queries, paths = panel_queries(namespace, iteration, math.ceil(end - start)), []
    for dashboard in dashboards.DASHBOARDS:
        titles = [panel.title for panels in dashboard.rows.values() for panel in panels]
        rows = math.ceil(len(titles) / 3)
        figure, grid = plt.subplots(rows, 3, figsize=(18, 3.2 * rows), layout="constrained", squeeze=False)
        figure.suptitle(f"{dashboard.title}: {namespace}/{iteration}")
        for axes in grid.flat[len(titles) :]:
            axes.axis("off")
        for axes, title in zip(grid.flat, titles, strict=False):
            mine = [q for q in queries if (q.dashboard, q.panel) == (dashboard.title, title)]
            _draw(axes, prometheus, mine, start, end)
        paths.append(folder / f"{dashboard.name}.png")
        figure.savefig(paths[-1], dpi=100)
        plt.close(figure)
    return paths
