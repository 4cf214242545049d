"""Debian's Prometheus on this machine, scraping a namespace of the embedded cluster as the chart's monitors say.

`with scrape(kubeconfig, namespace, folder) as prometheus:` around a run; afterwards `prometheus.query(...)`, and
`silent(prometheus, ...)`: the panels of both dashboards whose queries bring nothing.
"""

import json
import math
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from dev import dashboards
from tests.cluster.charts import PROMETHEUS_API, Document, one, rendered
from tests.monitoring.discovery import discover, label
from tests.patience import deadline

INTERVAL = "2s"


def _keep(label: str, value: str) -> Document:
    return {"source_labels": [f"__meta_kubernetes_{label}"], "regex": re.escape(value), "action": "keep"}


def _copy(label: str, target: str) -> Document:
    return {"source_labels": [f"__meta_kubernetes_{label}"], "target_label": target}


def _snake(rule: Document) -> Document:
    return {re.sub(r"[A-Z]", lambda m: "_" + m[0].lower(), key): value for key, value in rule.items()}


def _scrape_config(monitor: Document, endpoint: Document, folder: Path) -> Document:
    spec, pods = monitor["spec"], monitor["kind"] == "PodMonitor"
    what, port = ("pod", "pod_container_port_name") if pods else ("service", "endpoint_port_name")
    role = "pod" if pods else "endpoints"
    over = {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Failed|Succeeded", "action": "drop"}
    return {
        "job_name": f"{monitor['metadata']['name']}/{endpoint['port']}",
        "honor_labels": endpoint["honorLabels"],
        "scrape_interval": endpoint["interval"],
        "scrape_timeout": endpoint["interval"],
        "file_sd_configs": [{"files": [str(folder / f"{role}.json")]}],
        "relabel_configs": [
            *([over] if pods else []),
            *(_keep(f"{what}_label_{label(k)}", v) for k, v in spec["selector"]["matchLabels"].items()),
            _keep(port, endpoint["port"]),
            _copy("namespace", "namespace"),
            _copy("pod_name", "pod"),
            _copy("pod_container_name", "container"),
            *map(_snake, endpoint["relabelings"]),
        ],
    }


def scrape_configs(documents: list[Document], folder: Path) -> list[Document]:
    """What the Prometheus operator makes of the chart's ServiceMonitor and PodMonitor, as far as they go."""
    service, pods = one(documents, "ServiceMonitor"), one(documents, "PodMonitor")
    wanted = [(service, e) for e in service["spec"]["endpoints"]]
    wanted += [(pods, e) for e in pods["spec"]["podMetricsEndpoints"]]
    return [_scrape_config(monitor, endpoint, folder) for monitor, endpoint in wanted]


@dataclass(frozen=True)
class Prometheus:
    """A running one."""

    url: str
    log: Path

    def get(self, path: str, **query: str) -> Any:
        """`data` of an answer of its API."""
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from error

    def query(self, expression: str, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """Labels and values of an instant query, those that are numbers."""
        when = {} if at is None else {"time": str(at)}
        found = self.get("query", query=expression, **when)["result"]
        values = [(series["metric"], float(series["value"][1])) for series in found]
        return [(labels, value) for labels, value in values if not math.isnan(value)]

    def over(self, expression: str, start: float, end: float, step_s: float = 2) -> list[tuple[dict[str, str], list]]:
        """Labels and (time, value) pairs of a range query that ends at `end` exactly, those that are numbers."""
        start = end - step_s * math.ceil((end - start) / step_s)
        found = self.get("query_range", query=expression, start=str(start), end=str(end), step=str(step_s))["result"]
        rows = [(s["metric"], [(t, float(v)) for t, v in s["values"] if v != "NaN"]) for s in found]
        return [(labels, values) for labels, values in rows if values]

    def targets(self) -> list[Document]:
        """What it scrapes now."""
        found: list[Document] = self.get("targets", state="active")["activeTargets"]
        return found

    def rules(self) -> list[Document]:
        """Rules, with their health."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]


def _wait_ready(prometheus: Prometheus, process: subprocess.Popen[bytes]) -> None:
    end = deadline(30)
    while True:
        try:
            with urllib.request.urlopen(f"{prometheus.url}/-/ready", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            assert process.poll() is None, prometheus.log.read_text()
        assert time.monotonic() < end, prometheus.log.read_text()
        time.sleep(0.1)


@contextmanager
def scrape(kubeconfig: Path, namespace: str, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes a release called dpe in this namespace every two seconds, with the chart's rules."""
    path = shutil.which("prometheus")
    if path is None:
        pytest.fail("prometheus is not installed: `make setup` installs it")
    documents = rendered(*PROMETHEUS_API, "--set", f"monitoring.interval={INTERVAL}", namespace=namespace)
    rules = {"groups": one(documents, "PrometheusRule")["spec"]["groups"]}
    configuration = {
        "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [str(folder / "rules.yaml")],
        "scrape_configs": scrape_configs(documents, folder),
    }
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [path, f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address={address}", "--log.level=warn"]
    log = folder / "prometheus.log"
    with discover(kubeconfig, [namespace], folder):
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            prometheus = Prometheus(f"http://{address}", log)
            _wait_ready(prometheus, process)
            yield prometheus
        finally:
            process.terminate()
            process.wait(30)


@dataclass(frozen=True)
class Query:
    """One query of a panel, as Grafana would send it."""

    dashboard: str
    panel: str
    kind: str
    unit: str
    expression: str
    legend: str


def panel_queries(namespace: str, iteration: str, span_s: int) -> list[Query]:
    """All queries of both dashboards about an iteration."""
    return [
        Query(
            dashboard.title,
            panel.title,
            panel.kind,
            panel.unit,
            dashboards.filled(query, namespace=namespace, iteration=iteration, interval="10s", span=f"{span_s}s"),
            legend,
        )
        for dashboard in dashboards.DASHBOARDS
        for panels in dashboard.rows.values()
        for panel in panels
        for query, legend in panel.queries
    ]


def silent(prometheus: Prometheus, namespace: str, iteration: str, start: float, end: float) -> list[str]:
    """Panels and queries without a single number between two moments; stats and bars are asked at the end."""
    empty = []
    for query in panel_queries(namespace, iteration, math.ceil(end - start)):
        if query.kind == "timeseries":
            found: list[Any] = prometheus.over(query.expression, start, end)
        else:
            found = prometheus.query(query.expression, end)
        if not found:
            empty.append(f"{query.dashboard} / {query.panel}: {query.expression}")
    return empty
