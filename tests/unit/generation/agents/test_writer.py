import pytest
from tests.fakes.endpoints import block
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import Asked, Reply, completion, serving
from tests.unit.generation.agents.given import (
    EXAMPLES,
    QUESTION,
    SEEN,
    WRITTEN,
    Cast,
    client_of,
    of,
    picture,
    role,
    target,
)

from dpe_api.agents_spec import WriterAgent
from dpe_api.artifacts import AnswerType
from dpe_jobs.client import RequestFailed
from dpe_jobs.endpoints.structured import ASKS, MalformedReply
from dpe_jobs.generation.agents.words import LONGEST_OPTION
from dpe_jobs.generation.agents.writer import TYPES, EndpointWriter
from dpe_jobs.generation.images import Picture
from dpe_jobs.generation.quality.wording import LONGEST_ANSWER
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.roles import Rejected, Target
from dpe_jobs.generation.validator import malformed

SETTINGS = WriterAgent(endpoint="teacher")


async def write(model, wanted: Target | None = None, seen: Picture | None = None, store=None) -> Written:
    async with client_of(model, store) as client:
        writer = EndpointWriter(client, of(model), SETTINGS, EXAMPLES)
        return await writer.write(wanted or target(), seen or picture())


async def test_the_picture_is_described_before_and_apart_from_the_question():
    with serving(Cast()) as model:
        written = await write(model)
        observe, ask = model.requests
    assert [role(observe), role(ask)] == ["observe", "write"]
    assert "write a question" not in observe.question
    assert not observe.sampled, "facts are not sampled"
    assert block(ask.question, "observation") == SEEN["observation"]
    assert observe.image == ask.image, "the writer looks for itself, too"
    assert (written.question, written.answer, written.answer_type) == (WRITTEN.question, "3", AnswerType.NUMBER)
    assert written.observation == SEEN["observation"]
    assert written.rationale == QUESTION["rationale"]
    assert malformed(written) is None


async def test_the_question_is_aimed_by_weakness_facets_difficulty_type_and_earlier_failures():
    with serving(Cast()) as model:
        await write(model, target(question_type=AnswerType.NUMBER, difficulty="harder"))
        text, form = model.requests[1].question, model.requests[1].body["response_format"]
    assert block(text, "weakness") == "miscounts birds that overlap"
    assert block(text, "facets") == "- light: dusk"
    assert "it said '5'; right is '4'" in block(text, "examples")
    assert "Difficulty: harder" in text
    assert form["json_schema"]["schema"]["properties"]["answer_type"]["const"] == "number"


async def test_only_answers_that_a_program_can_check_may_be_written():
    with serving(Cast()) as model:
        await write(model)
        schema = model.requests[1].body["response_format"]["json_schema"]["schema"]
    assert set(schema["properties"]["answer_type"]["enum"]) == set(TYPES)
    assert AnswerType.JUDGE not in TYPES
    with serving(Cast(write=QUESTION | {"answer_type": "judge"})) as model, pytest.raises(MalformedReply):
        await write(model)


async def test_a_picture_about_which_nothing_on_target_can_be_asked_is_a_rejection_with_the_reason():
    nothing = Cast(write=QUESTION | {"possible": False, "why_not": "no bird"})
    with serving(nothing) as model, pytest.raises(Rejected) as caught:
        await write(model)
    assert caught.value.rejection == ("NoQuestion", "no bird")


@pytest.mark.parametrize("who", ["observe", "write"])
async def test_a_model_that_declines_rejects_this_target_and_is_not_pressed(who):
    with serving(Cast(**{who: completion(None, refusal="I will not look at people")})) as model:
        with pytest.raises(Rejected) as caught:
            await write(model)
        assert sum(role(a) == who for a in model.requests) == 1
    assert caught.value.rejection.reason == "Declined"
    assert "I will not look at people" in caught.value.rejection.detail


async def test_malformed_replies_are_asked_for_again_and_then_an_error_of_the_service():
    replies = iter(["{", '{"question": "How many?"}'])
    with serving(Cast(write=lambda asked: next(replies, None) or QUESTION)) as model:
        assert (await write(model)).answer == "3"
        assert len(model.requests) == 1 + 3
    with serving(Cast(write="It is a nice picture.")) as model:
        with pytest.raises(MalformedReply, match="endpoint teacher"):
            await write(model)
        asked = [a for a in model.requests if role(a) == "write"]
    assert len(asked) == ASKS
    assert len({a.body["seed"] for a in asked}) == ASKS, "the same request would bring the same from the ledger"


LONG = ", ".join(f"item {number}" for number in range(30))  # 258 characters


@pytest.mark.parametrize(
    "said",
    [
        {"answer": LONG, "answer_type": "list"},
        {"answer": LONG, "answer_type": "choice", "choices": [LONG, f"{LONG} 2"]},
    ],
    ids=["answer", "options"],
)
async def test_long_answers_and_options_are_taken_whole(said):
    with serving(Cast(write=QUESTION | said)) as model:
        written = await write(model)
    assert written.answer == LONG
    assert list(written.choices) == said.get("choices", [])


@pytest.mark.parametrize(
    ("field", "what"), [("answer", "the answer has more than 1000"), ("choices", "an option has more than 300")]
)
@pytest.mark.parametrize("end", ["x", " "], ids=["letters", "white space"])
async def test_an_answer_or_option_that_is_too_long_is_never_cut_and_rejects_the_target_at_once(field, what, end):
    """A server that constrains replies ends each text at the schema's bound, in the middle of a word or not."""
    said = QUESTION | {"answer_type": "choice", "choices": ["2", "3"], "answer": "3"}
    endless = "x" * (LONGEST_ANSWER if field == "answer" else LONGEST_OPTION) + end
    said |= {field: [endless, "3"] if field == "choices" else endless}
    with serving(Cast(write=said)) as model:
        with pytest.raises(Rejected) as caught:
            await write(model)
        assert [role(a) for a in model.requests] == ["observe", "write"], "nothing is paid for twice"
    assert caught.value.rejection.reason == "AnswerType"
    assert what in caught.value.rejection.detail


async def test_a_long_option_of_a_question_that_has_none_is_passed_over():
    with serving(Cast(write=QUESTION | {"answer_type": "exact", "choices": ["x" * (LONGEST_ANSWER + 1)]})) as model:
        written = await write(model)
        assert [role(a) for a in model.requests] == ["observe", "write"]
    assert (written.answer, written.choices) == ("3", ())


async def test_options_belong_to_multiple_choice_only():
    choice = QUESTION | {"answer_type": "choice", "choices": ["2", "3", "4"], "answer": "3"}
    with serving(Cast(write=choice)) as model:
        assert (await write(model)).choices == ("2", "3", "4")
    with serving(Cast(write=QUESTION | {"choices": ["2", "3"]})) as model:
        assert (await write(model)).choices == ()


async def test_a_target_that_is_begun_again_comes_out_the_same_and_costs_nothing():
    store = MemoryStore()
    with serving(lambda asked: Cast(observe={"observation": f"seen {asked.number}"})(asked)) as model:
        first = await write(model, store=store)
        again = await write(model, store=store)
        other = await write(model, target(1), store=store)
        assert len(model.requests) == 4
    assert first == again
    assert other.observation == "seen 2"


async def test_an_endpoint_that_dies_in_the_middle_loses_only_what_was_not_answered():
    store = MemoryStore()

    def dying(asked: Asked) -> list[str] | Reply:
        return Reply(status=500) if role(asked) == "write" else Cast()(asked)

    with serving(dying) as model:
        with pytest.raises(RequestFailed, match="HTTP 500"):
            await write(model, store=store)
        model.script = Cast()
        before = len(model.requests)
        await write(model, store=store)
        assert [role(a) for a in model.requests[before:]] == ["write"], "the description is paid for"
