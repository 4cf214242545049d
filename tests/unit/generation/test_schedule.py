import random

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.generation import world

from dpe_api.artifacts import Quota
from dpe_api.generation_spec import SourceKind
from dpe_jobs.generation.roles import Aim, Order, Rejection, Target
from dpe_jobs.generation.schedule import SMALLEST_BLOCK, Decision, Line, Schedule

WARMUP = "Warmup"
WRONG = Rejection("WrongAnswer", "")
TOO_HARD = Rejection("TooHard", "pass rate 0.11 is below minPassRate 0.3")


def schedule(wanted=world.QUOTAS, budget=220, warmup=None) -> Schedule:
    return Schedule(world.quotas(wanted), wanted, budget, warmup=warmup)


def planned(order: Order) -> list[Target]:
    return [
        Target(order.category, order.first + i, SourceKind.RENDER, "render:x", {}, Aim(""), 0)
        for i in range(order.count)
    ]


def passes(target: Target, share: float) -> bool:
    return random.Random(f"{target.category} {target.number}").random() < share


def is_unfit(line: Line, target: Target) -> bool:
    return line.warmup > 0 and random.Random(f"unfit {target.category} {target.number}").random() < 0.6


def play(s: Schedule, share: float, draw: random.Random, slots: int) -> list[tuple[str, int, str]]:
    """Run to the end, in an order and at a pace that `draw` decides; returns the decisions."""
    busy: list[Target] = []
    decided = []
    targets: dict[str, dict[int, Target]] = {name: {} for name in s.lines}
    while not s.done:
        for order in list(s.orders()):
            s.lines[order.category].plan(planned(order))
        while len(busy) < slots and (target := s.begin()) is not None:
            busy.append(target)
            targets[target.category][target.number] = target
        for _ in range(draw.randint(0, len(busy))):
            target = busy.pop(draw.randrange(len(busy)))
            line, good = s.lines[target.category], passes(target, share)
            line.judge(target.number, passed=good, unfit=not good and is_unfit(line, target))
        for line in s.lines.values():
            while line.next_is_judged and draw.random() < 0.7:
                target = targets[line.category].pop(line.settled)
                good, unfit = passes(target, share), is_unfit(line, target)
                reason, warmup = line.settle(
                    target, None if good or unfit else WRONG, None if good or not unfit else TOO_HARD
                )
                what = WARMUP if warmup else "" if reason is None else reason.reason
                decided.append((target.category, target.number, what))
    return decided


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 40), min_size=1).filter(lambda q: sum(q.values())),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.integers(1, 90),
    st.integers(),
)
def test_what_is_kept_depends_neither_on_pace_nor_on_order_nor_on_how_many_are_under_way(
    wanted, factor, share, slots, seed
):
    budget = sum(wanted.values()) * factor
    one, other = schedule(wanted, budget), schedule(wanted, budget)
    kept = {(c, n) for c, n, reason in play(one, share, random.Random(seed), slots) if not reason}
    assert kept == {(c, n) for c, n, reason in play(other, share, random.Random(seed + 1), 1) if not reason}
    for row in one.report():
        assert row.kept + sum(row.rejected.values()) == row.candidates <= row.quota * factor
        assert (row.kept == row.quota) == (row.shortfall_reason is None)
        assert row.kept == row.quota or row.candidates == row.quota * factor
        first = sorted(n for c, n in kept if c == row.name)
        assert len(first) == row.kept


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 20), min_size=1).filter(lambda q: sum(q.values())),
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 20), min_size=1),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.integers(1, 90),
    st.integers(),
)
def test_what_is_kept_for_the_warm_up_does_not_depend_on_pace_either(wanted, warmup, factor, share, slots, seed):
    wanted = dict.fromkeys(warmup, 0) | wanted
    budget = (sum(wanted.values()) + sum(warmup.values())) * factor
    one, other = schedule(wanted, budget, warmup), schedule(wanted, budget, warmup)
    kept = {(c, n, what) for c, n, what in play(one, share, random.Random(seed), slots) if what in ("", WARMUP)}
    again = play(other, share, random.Random(seed + 1), 1)
    assert kept == {(c, n, what) for c, n, what in again if what in ("", WARMUP)}
    for row in one.report():
        line = one.lines[row.name]
        assert row.kept + row.warmup + sum(row.rejected.values()) == row.candidates <= line.cap + line.warmup_cap
        assert row.kept <= row.quota
        assert row.warmup <= line.warmup
        assert row.warmup == line.warmup or row.candidates == line.cap + line.warmup_cap
    assert sum(row.candidates for row in one.report()) <= budget


def test_first_the_quota_is_begun_and_then_what_is_missing_by_the_share_that_passed():
    s = schedule({"shape": 10}, budget=100)
    line = s.lines["shape"]
    (order,) = s.orders()
    line.plan(planned(order))
    begun = [target for _ in range(100) if (target := s.begin()) is not None]
    assert [t.number for t in begun] == list(range(10))
    for i in range(10):
        line.judge(i, passed=i < 3)
    assert line.wanted() == 21, "7 missing, (3+1)/(10+2) passed"


def test_a_hopeless_category_starves_no_other():
    s = schedule({"shape": 10, "negation": 10}, budget=100)
    while not s.done:
        for order in list(s.orders()):
            s.lines[order.category].plan(planned(order))
        while (t := s.begin()) is not None:
            good = t.category == "shape" and t.number >= 39
            line = s.lines[t.category]
            line.judge(t.number, passed=good)
            line.settle(t, None if good else TOO_HARD)
    by_name = {row.name: row for row in s.report()}
    assert by_name["negation"].candidates == 50
    assert by_name["shape"].kept == 10


def test_a_block_is_planned_from_what_became_of_all_targets_before_the_block_before_it():
    line = Line("shape", quota=2 * SMALLEST_BLOCK, cap=1000)
    seen = []
    while line.settled < 5 * SMALLEST_BLOCK:
        order = line.order()
        if order is not None:
            seen.append((order.first, order.feedback.rejected.total()))
            line.plan(planned(order))
        target = line.begin()
        line.judge(target.number, passed=False)
        line.settle(target, TOO_HARD)
    assert seen == [(i * SMALLEST_BLOCK, max(0, i - 1) * SMALLEST_BLOCK) for i in range(5)]


def test_one_that_passed_and_turns_out_to_repeat_another_one_is_replaced():
    s = schedule({"shape": 1}, budget=10)
    line = s.lines["shape"]
    (order,) = s.orders()
    line.plan(planned(order))
    first = s.begin()
    line.judge(0, passed=True)
    assert s.begin() is None
    line.settle(first, Rejection("Duplicate", ""))
    second = s.begin()
    line.judge(1, passed=True)
    assert line.settle(second, None) == Decision(None)
    assert (s.done, line.kept, dict(line.rejected)) == (True, 1, {"Duplicate": 1})


def test_a_category_that_no_source_supplies_is_told_of_although_its_quota_went_to_the_others():
    wanted = [
        *world.quotas({"shape": 8}),
        Quota(name="reading", weight=0.6, quota=0, reachable=True, retention=False, supply=0),
        Quota(name="empty", weight=0.0, quota=0, reachable=True, retention=False),
    ]
    s = Schedule(wanted, ["shape"], 80, target=8)
    play(s, 1.0, random.Random(0), 4)
    assert [(row.name, row.quota, row.kept, row.shortfall_reason) for row in s.report()] == [
        ("shape", 8, 8, None),
        ("reading", 0, 0, "NoGenerator"),
    ]


def test_category_without_a_source_is_short_for_that_reason_and_nobody_gets_its_quota():
    s = Schedule(world.quotas({"shape": 3, "reading": 5}), ["shape"], 80)
    play(s, 1.0, random.Random(0), 4)
    reading = next(row for row in s.report() if row.name == "reading")
    assert (reading.kept, reading.candidates, reading.shortfall_reason) == (0, 0, "NoGenerator")
    assert (s.kept, s.target) == (3, 8)


def test_quotas_that_took_all_the_supply_leave_a_shortfall_with_that_reason():
    s = Schedule(world.quotas({"shape": 3, "color": 2}), ["shape", "color"], 80, target=8)
    while not s.done:
        for order in list(s.orders()):
            s.lines[order.category].plan(planned(order))
        while (t := s.begin()) is not None:
            good = t.category == "shape"
            s.lines[t.category].judge(t.number, passed=good)
            s.lines[t.category].settle(t, None if good else TOO_HARD)
    assert (s.kept, s.target) == (3, 8)
    assert {row.name: row.shortfall_reason for row in s.report()} == {"shape": "Supply", "color": "MaxCandidates"}


def test_an_end_before_the_quota_is_met_is_told_with_its_reason():
    s = schedule({"shape": 4}, budget=40)
    line = s.lines["shape"]
    (order,) = s.orders()
    line.plan(planned(order))
    target = s.begin()
    s.end("Budget")
    assert s.begin() is None
    line.judge(0, passed=True)
    line.settle(target, None)
    assert (s.done, s.report()[0].shortfall_reason, s.report()[0].kept) == (True, "Budget", 1)
