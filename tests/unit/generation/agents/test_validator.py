from dataclasses import replace
from typing import Any

import pytest
from tests.fakes.endpoints import block
from tests.fakes.openai_server import completion, serving
from tests.unit.generation.agents.given import (
    ANSWER,
    GOOD,
    WRITTEN,
    Cast,
    client_of,
    colour_of,
    of,
    picture,
    role,
    target,
)

from dpe_api.artifacts import AnswerType
from dpe_api.generation_spec import SourceKind
from dpe_jobs.endpoints.structured import MalformedReply
from dpe_jobs.generation.agents.validator import EndpointValidator
from dpe_jobs.generation.images import Picture
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.roles import Rejection


async def validate(model, written: Written = WRITTEN, seen: Picture | None = None) -> Rejection | None:
    async with client_of(model) as client:
        validator = EndpointValidator(client, of(model), client, of(model))
        return await validator.validate(target(), seen or picture(), written)


async def test_a_good_question_passes_after_a_blind_answer_and_a_judgement():
    with serving(Cast()) as model:
        assert await validate(model) is None
        assert [role(a) for a in model.requests] == ["answer", "verify"]


async def test_nobody_who_checks_sees_the_proposed_answer():
    secret = replace(WRITTEN, answer="three-hundred", answer_type=AnswerType.EXACT, rationale="why", observation="saw")
    with serving(Cast(answer=ANSWER | {"answer": "three-hundred"})) as model:
        assert await validate(model, secret) is None
        for asked in model.requests:
            whole = str(asked.body)
            assert "three-hundred" not in whole
            assert "'why'" not in whole
            assert "saw" not in block(whole.replace("\\n", "\n"), "question")


async def test_a_validator_that_always_agrees_cannot_save_a_wrong_answer():
    with serving(Cast(verify=GOOD)) as model:
        assert await validate(model, replace(WRITTEN, answer="4")) == (
            "WrongAnswer",
            "proposed '4', a blind answer says '3'",
        )
        assert [role(a) for a in model.requests] == ["answer"], "a judgement of it would be wasted"


async def test_a_lying_validator_costs_samples_and_lets_none_through():
    with serving(Cast(answer=ANSWER | {"answer": "7"})) as model:
        assert (await validate(model) or ("",))[0] == "WrongAnswer"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"answerable": False}, "Unanswerable"),
        ({"single": False}, "Ambiguous"),
        ({"on_target": False}, "OffTarget"),
        ({"well_formed": False, "on_target": False}, "Malformed"),
    ],
)
async def test_each_fault_is_a_rejection_with_a_reason_of_its_own(fault: dict[str, Any], reason):
    with serving(Cast(verify=GOOD | fault | {"reason": "the wire is hidden"})) as model:
        assert await validate(model) == (reason, "the wire is hidden")


async def test_a_question_that_cannot_be_answered_blindly_is_unanswerable():
    with serving(Cast(answer={"thoughts": "fog", "answerable": False, "answer": ""})) as model:
        assert await validate(model) == ("Unanswerable", "a blind answer: fog")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (Written("Is it red?", "yes", AnswerType.YES_NO), "Yes."),
        (Written("What is it?", "grey", AnswerType.EXACT), "Grey"),
        (Written("Which?", "two birds", AnswerType.CHOICE, ("one bird", "two birds")), "B"),
        (Written("How long?", "1200", AnswerType.NUMBER), "1,200"),
        (Written("What is half of x?", r"\frac{x}{2}", AnswerType.MATHS), "x/2"),
    ],
)
async def test_blind_answers_are_compared_by_the_graders_of_the_diagnosis(written, said):
    with serving(Cast(answer=ANSWER | {"answer": said})) as model:
        assert await validate(model, written) is None


@pytest.mark.parametrize(("end", "reason"), [("a wren", None), ("a crow", "WrongAnswer")])
async def test_long_answers_are_compared_to_their_ends(end, reason):
    listed = ", ".join(f"item {number}" for number in range(30))
    with serving(Cast(answer=ANSWER | {"answer": f"{listed}, {end}"})) as model:
        rejection = await validate(model, Written("Which?", f"{listed}, a wren", AnswerType.LIST))
    assert (rejection and rejection.reason) == reason


async def test_a_blind_answer_that_is_an_essay_is_a_wrong_one_and_is_asked_for_once():
    essay = "One on the left, one in the middle. " * 40
    with serving(Cast(answer=ANSWER | {"answer": f"{essay}3"})) as model:
        rejection = await validate(model)
        assert [role(a) for a in model.requests] == ["answer"]
    assert rejection is not None
    assert rejection.reason == "WrongAnswer"
    assert "a blind answer has more than 1000 characters" in rejection.detail


async def test_options_are_shown_as_the_trained_model_will_see_them():
    written = Written("Which?", "two birds", AnswerType.CHOICE, ("one bird", "two birds"))
    with serving(Cast(answer=ANSWER | {"answer": "two birds"})) as model:
        await validate(model, written)
        assert block(model.requests[0].question, "question") == "Which?\nA. one bird\nB. two birds"


async def test_malformed_questions_cost_nothing():
    with serving(Cast()) as model:
        rejection = await validate(model, replace(WRITTEN, question="Count."))
        assert rejection is not None
        assert rejection.reason == "Malformed"
        assert model.requests == []


async def test_both_look_at_the_edited_picture_and_never_at_its_original():
    edited = picture("blue", SourceKind.EDIT, parents=(picture("red").origin,))
    with serving(Cast()) as model:
        await validate(model, seen=edited)
        assert [colour_of(a.image) for a in model.requests] == [(0, 0, 255)] * 2
        assert all(len(a.images) == 1 for a in model.requests)


@pytest.mark.parametrize("who", ["answer", "verify"])
async def test_a_validator_that_declines_keeps_the_candidate_out(who):
    with serving(Cast(**{who: completion(None, refusal="no people")})) as model:
        rejection = await validate(model)
    assert rejection is not None
    assert rejection.reason == "Declined"


async def test_no_verdict_is_an_error_and_never_an_approval():
    with serving(Cast(verify="APPROVED")) as model, pytest.raises(MalformedReply):
        await validate(model)


async def test_the_blind_answer_may_be_another_models():
    with serving(Cast()) as judge, serving(Cast()) as eye:
        async with client_of(judge) as first, client_of(eye) as second:
            validator = EndpointValidator(first, of(judge), second, of(eye))
            assert await validator.validate(target(), picture(), WRITTEN) is None
        assert [role(a) for a in judge.requests] == ["verify"]
        assert [role(a) for a in eye.requests] == ["answer"]
