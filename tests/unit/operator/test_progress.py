from datetime import UTC, datetime, timedelta

from dpe_api.artifacts import Progress
from dpe_operator.storage import together

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def part(done: int, *, attempt: int = 2, eta: float | None = None, age_s: int = 0) -> Progress:
    return Progress(
        attempt=attempt,
        done=done,
        total=10,
        unit="samples",
        rate=0.5,
        eta_seconds=eta,
        updated_at=NOW - timedelta(seconds=age_s),
    )


def test_shards_are_told_of_as_one_stage_that_is_as_slow_as_the_slowest_of_them():
    whole = together([part(3, eta=14.0, age_s=4), part(8, eta=4.0), part(10, age_s=60)])
    assert whole is not None
    assert (whole.done, whole.total, whole.rate, whole.eta_seconds, whole.updated_at) == (21, 30, 1.5, 14.0, NOW)


def test_what_an_earlier_attempt_left_is_not_counted():
    whole = together([part(9, attempt=1), part(2)])
    assert whole is not None
    assert (whole.attempt, whole.done, whole.total) == (2, 2, 10)


def test_without_any_part_there_is_none():
    assert together([]) is None
