import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.generation import world

from dpe_api.artifacts import AttributionReport, Interval, Slice, Weakness
from dpe_api.generation_spec import Source, SourceKind
from dpe_api.quality_spec import Quality
from dpe_jobs.generation.candidates import Team, make
from dpe_jobs.generation.findings import Findings
from dpe_jobs.generation.images import NoImage, Picture
from dpe_jobs.generation.planner import BARREN, SILENT, RulePlanner, choose_knobs, repeats
from dpe_jobs.generation.quality.inspector import Inspector
from dpe_jobs.generation.quality.reserved import Reserved
from dpe_jobs.generation.render import Program
from dpe_jobs.generation.render.shapes import Shapes
from dpe_jobs.generation.roles import Aim, Difficulty, Feedback, Order, Rejection, Target
from dpe_jobs.generation.schedule import Schedule
from dpe_jobs.generation.search.supply import SearchSupply
from dpe_jobs.generation.sources import BySource, RenderSupply
from dpe_jobs.generation.team import check_supply, supplies_of
from dpe_jobs.generation.validator import RuleValidator
from dpe_jobs.generation.workbench import Workbench
from dpe_jobs.generation.writer import RuleWriter
from dpe_jobs.runtime import BadConfig

RENDER = Source(kind=SourceKind.RENDER, program="shapes")
RECOLOUR = Source(kind=SourceKind.EDIT, program="recolour", share=0.5)


def weak(accuracy: float, rest: float, category: str | None = None, **facets: str) -> Slice:
    half = Interval(value=accuracy, low=0, high=1)
    return Slice(
        category=category, facets=facets, n=20, correct=0, accuracy=half, rest=rest, effect=half, p_value=0, q_value=0
    )


def findings(*slices: Slice, weaknesses: list[Weakness] | None = None, wanted=world.QUOTAS) -> Findings:
    failures = {"shape": [("p-1", {"color": "teal"}), ("p-2", {"color": "red"})]}
    attribution = AttributionReport(slices=list(slices), weaknesses=weaknesses or [])
    return Findings(world.quotas(wanted), {"shape": "accuracy 0.50"}, failures, attribution)


def plan(
    found: Findings, *sources: Source, category: str = "shape", count: int = 48, feedback: Feedback | None = None
) -> list[Target]:
    with Workbench() as workbench:
        planner = RulePlanner(found, supplies_of(sources or [RENDER], workbench), 1)
        return asyncio.run(planner.plan(Order(category, 0, count, feedback or Feedback())))


@given(st.integers(0, 1000), st.integers(0, 2**31 - 1))
def test_every_value_of_a_knob_comes_once_before_any_comes_again(start, seed):
    options = {"color": ("red", "green", "blue"), "truth": ("yes", "no")}
    block = [choose_knobs(options, start * 6 + i, seed) for i in range(6)]
    for name, values in options.items():
        for i in range(0, 6, len(values)):
            assert {knobs[name] for knobs in block[i : i + len(values)]} == set(values)


def test_targets_of_a_category_do_not_depend_on_the_others():
    alone = plan(findings(wanted={"shape": 5}))
    assert alone == plan(findings(wanted={"color": 9, "shape": 5}))


@pytest.mark.parametrize(
    ("accuracy", "rest", "times"), [(0.4, 0.8, 3), (0.6, 0.8, 2), (0.75, 0.8, 1), (0.0, 1.0, 3), (0.1, 0.5, 2)]
)
def test_a_weak_value_comes_as_much_more_often_as_its_error_rate_is_higher(accuracy, rest, times):
    slice_ = weak(accuracy, rest, "shape", color="teal")
    assert repeats(slice_) == times
    seen = Counter(target.knobs["color"] for target in plan(findings(slice_), count=10 * (7 + times)))
    assert (seen.pop("teal"), set(seen.values())) == (10 * times, {10})


def test_two_facets_that_are_weak_together_are_aimed_at_together():
    slice_ = weak(0.0, 0.7, "shape", color="teal", shape="circle")
    seen = Counter((t.knobs["color"], t.knobs["shape"]) for t in plan(findings(slice_), count=26))
    assert seen.pop(("teal", "circle")) == 3
    assert (len(seen), set(seen.values())) == (23, {1})


def test_a_slice_over_all_categories_and_one_of_another_category():
    everywhere, elsewhere = weak(0.4, 0.8, None, color="teal"), weak(0.4, 0.8, "color", color="red")
    seen = Counter(target.knobs["color"] for target in plan(findings(everywhere, elsewhere), count=100))
    assert (seen["teal"], seen["red"]) == (30, 10)


def test_anchors_are_spread_evenly_whatever_is_weak():
    slice_ = weak(0.4, 0.8, None, color="red")
    seen = Counter(t.knobs["color"] for t in plan(findings(slice_), category="color", count=50))
    assert set(seen.values()) == {10}


def test_a_target_in_a_weak_slice_says_so_and_names_its_failures():
    targets = plan(findings(weak(0.4, 0.8, "shape", color="teal")))
    aims = [t.aim for t in targets if t.knobs["color"] == "teal"]
    text = "accuracy 0.50; questions where color is teal: 40% right, 80% of the others"
    assert aims == [Aim(text, {"color": "teal"}, ("p-1",))] * len(aims)


def test_other_targets_aim_at_the_weaknesses_as_often_as_these_were_seen():
    known = [
        Weakness(category="shape", text="takes circles for triangles", count=30, examples=["p-9"]),
        Weakness(category="shape", text="cannot see small ones", count=10, examples=[]),
        Weakness(category="color", text="of another category", count=99, examples=[]),
    ]
    seen = Counter(target.aim.text for target in plan(findings(weaknesses=known), count=400))
    assert set(seen) == {"accuracy 0.50; takes circles for triangles", "accuracy 0.50; cannot see small ones"}
    assert 260 <= seen["accuracy 0.50; takes circles for triangles"] <= 340


def test_sources_get_their_shares_exactly_at_every_moment():
    kinds = [target.source for target in plan(findings(), RENDER, RECOLOUR, count=99)]
    for end in range(1, 100):
        assert abs(kinds[:end].count("edit:recolour") - end / 3) < 1


def test_a_source_that_brought_nothing_is_passed_over_and_a_value_that_brought_nothing_too():
    feedback = Feedback()
    target = next(t for t in plan(findings(), RENDER, RECOLOUR) if t.source == "edit:recolour")
    for _ in range(BARREN):
        feedback.add(target, Rejection("NoImage", "the shape is teal already"))
    again = plan(findings(), RENDER, RECOLOUR, feedback=feedback)
    assert {t.source for t in again} == {"render:shapes"}
    assert target.knobs["color"] not in {t.knobs["color"] for t in again}


def outage(reason: str, times: int) -> tuple[Feedback, Target]:
    """What is known after so many targets of the recolouring in a row met it, and the last of them."""
    feedback = Feedback()
    target = next(t for t in plan(findings(), RENDER, RECOLOUR) if t.source == "edit:recolour")
    for _ in range(times):
        feedback.add(target, Rejection(reason, "HTTP 503"))
    return feedback, target


@pytest.mark.parametrize(("reason", "times"), [("RequestFailed", BARREN), ("SourceFailed", SILENT - 1)])
def test_an_outage_of_a_service_is_held_against_no_source_and_no_value(reason, times):
    feedback, _ = outage(reason, times)
    assert feedback.rejected[reason] == times
    assert plan(findings(), RENDER, RECOLOUR, feedback=feedback) == plan(findings(), RENDER, RECOLOUR)


def test_a_source_that_does_not_answer_gets_one_target_a_block_until_one_is_answered():
    feedback, target = outage("SourceFailed", SILENT)
    silent = plan(findings(), RENDER, RECOLOUR, feedback=feedback)
    assert [t.source for t in silent].count("edit:recolour") == 1
    assert {t.knobs["color"] for t in silent} == {t.knobs["color"] for t in plan(findings())}, "no value is to blame"
    feedback.add(target, Rejection("NoImage", "the shape is teal already"))
    assert plan(findings(), RENDER, RECOLOUR, feedback=feedback) == plan(findings(), RENDER, RECOLOUR)


class Unreachable(SearchSupply):
    """A search whose images are on hosts that nobody reaches."""

    asked = 0

    async def select(self, target: Target) -> Picture:
        self.asked += 1
        raise NoImage("HostInTrouble: robots.txt of pictures.example cannot be read", outage=True)


def test_a_source_that_never_answers_costs_few_targets_and_the_others_meet_the_quota():
    quota = 100
    dead = Unreachable(0, Source(kind=SourceKind.SEARCH, provider="wikimedia"), "search:wikimedia")
    schedule = Schedule(world.quotas({"shape": quota}), ["shape"], 2 * quota)
    line = schedule.lines["shape"]
    with Workbench() as workbench, Reserved() as reserved:
        drawn = RenderSupply(Shapes(), 1.0, workbench)
        programs: dict[str, Program] = {drawn.name: drawn.program}
        planner = RulePlanner(findings(wanted={"shape": quota}), [dead, drawn], 1)
        team = Team(
            planner=planner,
            selector=BySource([dead, drawn]),
            writer=RuleWriter(programs, workbench),
            validator=RuleValidator(programs, workbench),
            workbench=workbench,
            inspector=Inspector(Quality(), reserved, answer_tokens=4, max_pixels=1_003_520),
            max_pixels=1_003_520,
        )

        async def run() -> None:
            while not schedule.done:
                for order in list(schedule.orders()):
                    line.plan(await planner.plan(order))
                target = schedule.begin()
                assert target is not None
                made = await make(team, target, "r0")
                rejection = made if isinstance(made, Rejection) else made.rejection
                line.judge(target.number, passed=rejection is None)
                line.settle(target, rejection)

        asyncio.run(run())
    assert line.met
    assert line.rejected == {"SourceFailed": dead.asked}
    assert dead.asked <= line.block + 4, "its share of the two blocks that were planned before anybody knew, then one"


def test_an_edit_by_a_model_has_the_categories_of_its_originals_and_no_others():
    edits = Source(kind=SourceKind.EDIT, endpoint="editor")
    with Workbench() as workbench:
        drawn = supplies_of([RENDER, edits], workbench)[-1]
        found = supplies_of([Source(kind=SourceKind.SEARCH, provider="wikimedia"), edits], workbench)[-1]
    assert (drawn.supplies("shape"), drawn.supplies("reading")) == (True, False)
    assert found.supplies("reading"), "nobody knows what the web has"


def test_an_edit_by_a_model_has_nothing_of_a_pool_that_only_a_program_reads():
    edits = Source(kind=SourceKind.EDIT, endpoint="editor")
    pool = Source(kind=SourceKind.POOL, uri="s3://dpe/data/pool", program="shapes")
    charts = Source(kind=SourceKind.RENDER, program="charts")
    with Workbench() as workbench:
        with pytest.raises(BadConfig, match="no other source has pictures") as caught:
            supplies_of([pool, edits], workbench)
        beside = supplies_of([pool, charts, edits], workbench)[-1]
    assert "render, search, or pool without a program" in str(caught.value)
    assert (beside.supplies("chart_graph"), beside.supplies("shape")) == (True, False)


def test_when_nothing_brought_anything_all_is_tried_on():
    feedback = Feedback()
    for target in plan(findings(), count=BARREN * 8 * 3):
        feedback.add(target, Rejection("TooHard", ""))
    assert {t.knobs["color"] for t in plan(findings(), feedback=feedback)} == {
        t.knobs["color"] for t in plan(findings())
    }


@pytest.mark.parametrize(
    ("reasons", "difficulty"),
    [(["TooEasy"], Difficulty.HARDER), (["TooHard"], Difficulty.EASIER), (["TooEasy", "TooHard"], Difficulty.SAME)],
)
def test_what_was_too_easy_or_too_hard_is_told_to_those_who_write(reasons, difficulty):
    feedback = Feedback()
    for reason in reasons:
        feedback.add(plan(findings(), count=1)[0], Rejection(reason, ""))
    assert {t.difficulty for t in plan(findings(), feedback=feedback)} == {difficulty}


def test_no_category_with_a_source_is_a_bad_configuration_that_names_the_field():
    with Workbench() as workbench:
        supplies = supplies_of([RENDER], workbench)
    with pytest.raises(BadConfig, match=r"spec\.generation\.sources: render:shapes can supply none.*reading"):
        check_supply(supplies, world.quotas({"reading": 5}))
