"""The chart's Grafana dashboards, written down as tables of panels: `python -m dev.dashboards` makes the JSON.

The JSON imports without edits: its data source is a variable. `--check` fails when a file differs.
"""

from dev.dashboards import iteration, overview
from dev.dashboards.grafana import filled, text
from dev.dashboards.tables import WIDTH, Dashboard
from dev.paths import CHECKOUT

FOLDER = CHECKOUT / "charts" / "dpe" / "files" / "dashboards"
DASHBOARDS = (overview.PAGE, iteration.PAGE)
__all__ = ["DASHBOARDS", "FOLDER", "WIDTH", "Dashboard", "filled", "text"]
