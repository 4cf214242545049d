from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from dpe_jobs.training.metrics import (
    Memory,
    StepCollector,
    StepMetrics,
    append_row,
    from_trl,
    last_row,
    live,
    read_rows,
    summarise,
)
from dpe_jobs.training.pod import Result

TRL = {
    "loss": 0.25,
    "grad_norm": 1.5,
    "learning_rate": 1e-4,
    "num_tokens": 640.0,
    "completions/mean_length": 2.5,
    "reward": 0.5,
    "entropy": 0.9,
    "epoch": 0.1,
}


def row(step: int, reward: float = 0.5, tokens: int = 100, seconds: float = 1.0) -> StepMetrics:
    return StepMetrics(
        step=step,
        loss=0.0,
        reward=reward,
        completion_length=2.0,
        completion_tokens=20,
        total_tokens=step * tokens,
        seconds=seconds,
    )


def test_a_row_takes_trls_names_and_leaves_out_what_was_not_measured() -> None:
    found = from_trl(TRL, step=3, completions=16, seconds=0.5)
    assert found.completion_tokens == 40
    assert found.total_tokens == 640
    assert found.kl is None
    assert "kl" not in found.wire()


def test_rows_survive_the_file_and_a_line_half_written_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_row(path) is None
    assert read_rows(path) == []
    rows = [row(step) for step in range(1, 60)]
    for r in rows:
        append_row(path, r)
    with path.open("a") as out:
        out.write('{"step": 60, "lo')
    assert read_rows(path) == rows
    assert last_row(path) == rows[-1]


def test_the_summary_compares_the_first_fifth_with_the_last() -> None:
    rows = [row(step, reward=step / 10) for step in range(1, 11)]
    summary = summarise(rows, 4, Result(2, 7, None, 0.0))
    assert summary.first_reward == pytest.approx(0.15)
    assert summary.last_reward == pytest.approx(0.95)
    assert (summary.tokens.prompt, summary.tokens.completion) == (800, 200)
    assert summary.steps == 10


def test_the_summary_of_one_step_is_that_step() -> None:
    summary = summarise([row(1, reward=0.3)], None, Result(1, 0, "AllRight", 0.0))
    assert summary.first_reward == summary.last_reward == pytest.approx(0.3)
    assert summary.ended_early == "AllRight"


def test_a_step_on_the_rollouts_of_the_one_before_tells_what_that_told_of_them_and_has_no_new_tokens() -> None:
    before = from_trl({**TRL, "rewards/answer/mean": 0.4, "rewards/format/mean": 0.9}, 3, 16, 0.5)
    assert (before.answer, before.reward_parts) == (0.4, {"answer": 0.4, "format": 0.9})
    after = from_trl({"loss": 0.1, "entropy": 0.7}, 4, 16, 0.2, before)
    assert (after.reward, after.answer, after.reward_parts) == (before.reward, before.answer, before.reward_parts)
    assert (after.loss, after.entropy, after.total_tokens, after.completion_tokens) == (0.1, 0.7, 640, 0)
    assert after.tokens_per_second is None


def test_speed_counts_the_tokens_of_the_step_alone_and_memory_is_told_where_it_is_known() -> None:
    before = from_trl({**TRL, "num_tokens": 600.0}, 3, 16, 0.5)
    after = from_trl(TRL, 4, 16, 0.5, before, Memory(host=7))
    assert after.tokens_per_second == 80
    assert (after.host_memory_bytes, after.gpu_memory_bytes) == (7, None)
    assert live(after) == {
        "step": 4,
        "loss": 0.25,
        "reward": 0.5,
        "entropy": 0.9,
        "gradNorm": 1.5,
        "tokensPerSecond": 80,
        "hostMemoryBytes": 7,
    }


def test_scraping_shows_the_newest_step_and_nothing_before_the_first(tmp_path: Path) -> None:
    registry, path = CollectorRegistry(), tmp_path / "metrics.jsonl"
    registry.register(StepCollector(path))
    assert generate_latest(registry) == b""
    append_row(path, row(1))
    append_row(path, row(2, reward=0.75, seconds=3.5))
    text = generate_latest(registry).decode()
    assert "dpe_training_step 2.0" in text
    assert "dpe_training_reward 0.75" in text
    assert "dpe_training_seconds_per_step 3.5" in text
