"""A scripted model of known accuracy through the stage's own code: the small version of tests/bench/diagnosis."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom
from tests.bench.diagnosis.accuracy_simulated import Design, ScriptedModel, World, exact_coverage, simulate
from tests.fakes.openai_server import Asked, Reply

from dpe_jobs import client
from dpe_jobs.runtime import Transient

TRUTHS = (0.1, 0.5, 0.8, 0.95)
UNLUCKY = 1e-5  # chance of a failure by accident, for each comparison


def test_intervals_cover_the_truth_as_often_as_they_exactly_should():
    runs = 40
    found = simulate(Design(TRUTHS, 40), runs, rollouts=1)
    for p, covered in zip(TRUTHS, found.accuracy, strict=True):
        low, high = binom.interval(1 - UNLUCKY, runs, exact_coverage(p, 40))
        assert low <= covered * runs <= high, (p, covered)
    assert np.all(np.abs(found.accuracy_bias) < 4.5 * np.sqrt(np.array(TRUTHS) * (1 - np.array(TRUTHS)) / 40 / runs))


def test_wilson_covers_93_to_97_percent_from_fifty_rows_on():
    # docs/diagnosis-accuracy.md says where it does not: fewer rows, or accuracies beyond 0.1 and 0.9
    for n in (50, 100, 200):
        covered = [exact_coverage(p, n) for p in np.linspace(0.1, 0.9, 161)]
        assert np.mean([0.93 <= c <= 0.971 for c in covered]) >= 0.99, n
        assert 0.945 <= np.mean(covered) <= 0.957


def test_a_run_over_http_reports_what_a_run_in_process_reports(tmp_path: Path):
    world = World(Design(TRUTHS, 12, adaptive_share=0.4), tmp_path)
    assert world.run(5, http=True) == world.run(5)


@pytest.mark.parametrize("rate", [0.0, 0.03])
def test_accuracy_is_unbiased_by_server_errors_within_the_limit(rate):
    runs, rows = 6, 250
    found = simulate(Design(TRUTHS, rows, error_rate=rate), runs, rollouts=1)
    spread = np.sqrt(np.array(TRUTHS) * (1 - np.array(TRUTHS)) / rows / runs)
    assert np.all(np.abs(found.accuracy_bias) < 4.5 * spread)
    assert found.rows.sum() == pytest.approx(4 * rows * (1 - rate), abs=20)
    assert (found.rows.sum() == 4 * rows) == (rate == 0)


def test_errors_beyond_the_limit_stop_the_stage_by_name(tmp_path: Path):
    world = World(Design(TRUTHS, 100, error_rate=0.1), tmp_path)
    with pytest.raises(Transient, match=r"more than maxErrorRate allows \(20\)") as caught:
        world.run(0)
    assert caught.value.reason == "ErrorRate"


@pytest.mark.parametrize("rate", [0.0, 0.03, 0.1])
def test_the_same_over_http_with_a_server_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: float):
    monkeypatch.setattr(client, "wait_random_exponential", lambda **_: lambda state: 0.001)
    world = World(Design(TRUTHS, 50, error_rate=rate), tmp_path)
    script = ScriptedModel.script

    def failing(self, asked: Asked) -> list[str] | Reply:
        if self.refuses(asked.question):
            return Reply(status=503, body=b"overloaded")
        # and one request in fifty fails once: that is retried, and no error
        if asked.number % 50 == 7:
            return Reply(status=500)
        return script(self, asked)

    monkeypatch.setattr(ScriptedModel, "script", failing)
    if rate == 0.1:
        with pytest.raises(Transient, match="HTTP 503") as caught:
            world.run(1, http=True, rollouts=1)
        assert caught.value.reason == "ErrorRate"
        return
    report = world.run(1, http=True, rollouts=1)
    assert report.n + report.errors == 200
    assert (report.errors > 0) == (rate > 0)
    assert report == world.run(1, rollouts=1)
