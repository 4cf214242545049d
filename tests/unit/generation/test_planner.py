import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.generation import world

from dpe_api.artifacts import Quota
from dpe_jobs.generation.planner import Plan, choose_knobs
from dpe_jobs.generation.render.shapes import Shapes
from dpe_jobs.runtime import BadConfig


def plan(wanted=world.QUOTAS, budget=220, seed=1) -> Plan:
    return Plan(world.quotas(wanted), [Shapes()], {}, budget, seed)


def test_first_wave_is_the_quota_and_the_next_one_what_is_missing_by_the_share_kept():
    p = plan({"shape": 10}, budget=100)
    first = p.next_wave()
    assert [t.number for t in first] == list(range(10))
    for i in range(10):
        p.settle("shape", None if i < 3 else "TooHard")
    assert len(p.next_wave()) == 21, "7 missing, (3+1)/(10+2) kept"


@given(
    st.dictionaries(st.sampled_from(Shapes().categories()), st.integers(0, 40), min_size=1).filter(
        lambda q: sum(q.values())
    ),
    st.integers(1, 12),
    st.data(),
)
def test_plan_ends_within_the_budget_and_keeps_no_more_than_the_quotas(wanted, factor, data):
    target = sum(wanted.values())
    p = plan(wanted, budget=target * factor)
    tried = 0
    while wave := p.next_wave():
        tried += len(wave)
        for t in wave:
            p.settle(t.category, data.draw(st.sampled_from([None, "TooHard"])))
    assert tried <= target * factor
    for row in p.report():
        assert row.kept <= row.quota
        assert row.kept + sum(row.rejected.values()) == row.candidates
        assert (row.kept == row.quota) == (row.shortfall_reason is None)
        assert row.kept == row.quota or row.candidates == row.quota * factor


def test_a_hopeless_category_starves_no_other():
    p = plan({"shape": 10, "negation": 10}, budget=100)
    while wave := p.next_wave():
        for t in wave:
            p.settle(t.category, "TooHard" if t.category == "negation" or t.number < 39 else None)
    by_name = {row.name: row for row in p.report()}
    assert by_name["negation"].candidates == 50
    assert by_name["shape"].kept == 10


def test_targets_of_a_category_do_not_depend_on_the_others():
    alone = [t for t in plan({"shape": 5}).next_wave() if t.category == "shape"]
    among = [t for t in plan({"color": 9, "shape": 5}).next_wave() if t.category == "shape"]
    assert alone == among


@given(st.integers(0, 1000), st.integers(0, 2**31 - 1))
def test_every_value_of_a_knob_comes_once_before_any_comes_again(start, seed):
    options = {"color": ("red", "green", "blue"), "truth": ("yes", "no")}
    block = [choose_knobs(options, start * 6 + i, seed) for i in range(6)]
    for name, values in options.items():
        for i in range(0, 6, len(values)):
            assert {knobs[name] for knobs in block[i : i + len(values)]} == set(values)


def test_category_without_a_program_is_short_for_that_reason_and_nobody_gets_its_quota():
    p = plan({"shape": 3, "reading": 5})
    while wave := p.next_wave():
        for t in wave:
            p.settle(t.category, None)
    reading = next(row for row in p.report() if row.name == "reading")
    assert (reading.kept, reading.candidates, reading.shortfall_reason) == (0, 0, "NoGenerator")
    assert (p.kept, p.target) == (3, 8)


def test_a_category_that_no_source_supplies_is_told_of_although_its_quota_went_to_the_others():
    wanted = [
        *world.quotas({"shape": 8}),
        Quota(name="reading", weight=0.6, quota=0, reachable=True, retention=False, supply=0),
        Quota(name="empty", weight=0.0, quota=0, reachable=True, retention=False),
    ]
    p = Plan(wanted, [Shapes()], {}, 80, 1, target=8)
    while wave := p.next_wave():
        for t in wave:
            p.settle(t.category, None)
    assert [(row.name, row.quota, row.kept, row.shortfall_reason) for row in p.report()] == [
        ("shape", 8, 8, None),
        ("reading", 0, 0, "NoGenerator"),
    ]


def test_quotas_that_took_all_the_supply_leave_a_shortfall_with_that_reason():
    p = Plan(world.quotas({"shape": 3, "color": 2}), [Shapes()], {}, 80, 1, target=8)
    while wave := p.next_wave():
        for t in wave:
            p.settle(t.category, "TooHard" if t.category == "color" else None)
    assert (p.kept, p.target) == (3, 8)
    assert {row.name: row.shortfall_reason for row in p.report()} == {"shape": "Supply", "color": "MaxCandidates"}


def test_no_category_with_a_program_is_a_bad_configuration_that_names_the_field():
    with pytest.raises(BadConfig, match=r"spec\.generation\.sources: shapes can supply color.*categories are reading"):
        plan({"reading": 5})
    nothing = Quota(name="reading", weight=1.0, quota=0, reachable=True, retention=False, supply=0)
    with pytest.raises(BadConfig, match=r"spec\.generation\.sources: shapes can supply color.*categories are reading"):
        Plan([nothing], [Shapes()], {}, 220, 1, target=100)
