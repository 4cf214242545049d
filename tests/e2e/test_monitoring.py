"""Prometheus beside the first whole turn: both dashboards show something, and it is what the status says."""

import pytest

from dpe_api.names import BATCH_STAGES
from tests.e2e.conftest import Turn
from tests.e2e.world import World
from tests.monitoring.scraping import Prometheus, silent
from tests.unit.monitoring.test_metrics import BOUNDED, DESIGN

OF_THE_SCRAPE = {"__name__", "job", "dpe_release", "instance", "namespace", "pod", "container"}
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3000)]


def test_every_panel_of_both_dashboards_has_data(first_turn: Turn, prometheus: Prometheus, world: World) -> None:
    assert silent(prometheus, world.namespace, first_turn.name, first_turn.start, first_turn.end) == []


def test_no_alert_fires_and_every_rule_can_be_evaluated(first_turn: Turn, prometheus: Prometheus) -> None:
    assert {rule["health"] for rule in prometheus.rules()} == {"ok"}
    assert prometheus.over('ALERTS{alertstate="firing"}', first_turn.start, first_turn.end) == []


def test_prometheus_and_the_status_tell_the_same(first_turn: Turn, prometheus: Prometheus, world: World) -> None:
    status, end = first_turn.status, first_turn.end

    def value(metric: str, more: str = "", of: str = "sum") -> float:
        own = f'job="dpe-operator",namespace="{world.namespace}",iteration="{first_turn.name}"{more}'
        return prometheus.query(f"{of}({metric}{{{own}}})", end)[0][1]

    assert value("dpe_iteration_tokens") == status.cost.tokens
    assert value("dpe_iteration_gpu_seconds") == pytest.approx(status.cost.gpu_seconds)
    assert value("dpe_iteration_samples", ',outcome="kept"') == status.samples.kept
    benchmark = next(e for e in status.evaluation if e.name == "test")
    assert value("dpe_iteration_accuracy", ',model="after"', of="avg") == pytest.approx(benchmark.after)
    steps = prometheus.over(f'max(dpe_training_step{{namespace="{world.namespace}"}})', first_turn.start, end)
    assert max(value for _, value in steps[0][1]) >= 8  # of 16; the last ones may fall between two scrapes


@pytest.mark.parametrize("name", DESIGN)
def test_every_metric_of_the_design_is_scraped_with_its_labels_and_few_values(
    name: str, first_turn: Turn, prometheus: Prometheus
) -> None:
    named = f'{{__name__=~"{name}(_total|_bucket)?",job="dpe-operator"}}'
    rows = prometheus.over(named, first_turn.start, first_turn.end)
    assert rows, f"{name} was never scraped"
    for labels, _ in rows:
        assert labels.keys() - OF_THE_SCRAPE - {"le"} == DESIGN[name] - OF_THE_SCRAPE
    for label in DESIGN[name] & BOUNDED.keys():
        assert len({labels[label] for labels, _ in rows}) <= BOUNDED[label], label


def test_series_of_stage_pods_say_which_stage_of_which_iteration_they_are_about(
    first_turn: Turn, prometheus: Prometheus
) -> None:
    rows = prometheus.over('dpe_stage_items_done{job="dpe-stages"}', first_turn.start, first_turn.end)
    told = {(labels["iteration"], labels["stage"], labels["attempt"]) for labels, _ in rows}
    assert {(first_turn.name, str(stage), "1") for stage in BATCH_STAGES} <= told
