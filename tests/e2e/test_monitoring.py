"""Prometheus watches the first whole turn: every panel of both dashboards has something to show."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from dev.cluster.config import Cluster

from dpe_api.names import BATCH_STAGES
from tests.e2e.conftest import Turn
from tests.e2e.world import World, wait_for
from tests.monitoring.drawing import draw
from tests.monitoring.scraping import Prometheus, scrape, silent
from tests.unit.monitoring.test_metrics import BOUNDED, DESIGN

OF_THE_SCRAPE = {"__name__", "job", "instance", "namespace", "pod", "container"}
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]


@dataclass(frozen=True)
class Watched:
    """A turn and who watched it, from when to when (seconds since the epoch)."""

    prometheus: Prometheus
    turn: Turn
    start: float
    end: float


@pytest.fixture(scope="module")
def prometheus(cluster: Cluster, world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Starts before the turn: this file's name comes before that of the others that ask for it."""
    with scrape(cluster.kubeconfig, world.namespace, tmp_path_factory.mktemp("prometheus")) as it:
        yield it


@pytest.fixture(scope="module")
def watched(prometheus: Prometheus, world: World, request: pytest.FixtureRequest) -> Watched:
    start = time.time()
    turn = request.getfixturevalue("first_turn")
    # what the operator counts comes a moment after the status
    done = f'dpe_iteration_phase{{namespace="{world.namespace}",iteration="{turn.name}",phase="Succeeded"}}'
    wait_for(lambda: prometheus.query(done), 30, lambda: "Prometheus does not see the end of the turn")
    return Watched(prometheus, turn, start, time.time())


def test_every_panel_of_both_dashboards_has_data(watched: Watched, world: World) -> None:
    found = silent(watched.prometheus, world.namespace, watched.turn.name, watched.start, watched.end)
    assert found == []


def test_no_alert_fires_and_every_rule_can_be_evaluated(watched: Watched) -> None:
    rules = watched.prometheus.rules()
    assert {rule["health"] for rule in rules} == {"ok"}
    fired = watched.prometheus.over('ALERTS{alertstate="firing"}', watched.start, watched.end)
    assert fired == []


def test_prometheus_and_the_status_tell_the_same(watched: Watched, world: World) -> None:
    ask, status = watched.prometheus.query, watched.turn.status
    own = f'{{job="dpe-operator",namespace="{world.namespace}",iteration="{watched.turn.name}"}}'
    assert ask(f"dpe_iteration_tokens{own}", watched.end)[0][1] == status.cost.tokens
    assert ask(f"dpe_iteration_gpu_seconds{own}", watched.end)[0][1] == pytest.approx(status.cost.gpu_seconds)
    kept = own.replace("}", ',outcome="kept"}')
    assert ask(f"dpe_iteration_samples{kept}", watched.end)[0][1] == status.samples.kept
    benchmark = next(e for e in status.evaluation if e.name == "test")
    after = own.replace("}", ',model="after"}')
    assert ask(f"avg(dpe_iteration_accuracy{after})", watched.end)[0][1] == pytest.approx(benchmark.after)
    steps = watched.prometheus.over(
        f'max(dpe_training_step{{namespace="{world.namespace}"}})', watched.start, watched.end
    )
    assert max(value for _, value in steps[0][1]) >= 8  # of 16; the last ones may fall between two scrapes


@pytest.mark.parametrize("name", DESIGN)
def test_every_metric_of_the_design_is_scraped_with_its_labels_and_few_values(name: str, watched: Watched) -> None:
    named = f'{{__name__=~"{name}(_total|_bucket)?",job="dpe-operator"}}'
    rows = watched.prometheus.over(named, watched.start, watched.end)
    assert rows, f"{name} was never scraped"
    for labels, _ in rows:
        assert labels.keys() - OF_THE_SCRAPE - {"le"} == DESIGN[name] - OF_THE_SCRAPE
    for label in DESIGN[name] & BOUNDED.keys():
        assert len({labels[label] for labels, _ in rows}) <= BOUNDED[label], label


def test_series_of_stage_pods_say_which_stage_of_which_iteration_they_are_about(watched: Watched) -> None:
    rows = watched.prometheus.over('dpe_stage_items_done{job="dpe-stages"}', watched.start, watched.end)
    told = {(labels["iteration"], labels["stage"], labels["attempt"]) for labels, _ in rows}
    assert {(watched.turn.name, str(stage), "1") for stage in BATCH_STAGES} <= told


def test_the_dashboards_can_be_drawn(watched: Watched, world: World, tmp_path: Path) -> None:
    pictures = draw(watched.prometheus, world.namespace, watched.turn.name, watched.start, watched.end, tmp_path)
    assert all(path.stat().st_size > 50_000 for path in pictures), f"look at {tmp_path}"
