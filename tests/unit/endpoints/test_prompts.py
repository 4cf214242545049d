import hashlib
from pathlib import Path

import pytest

from dpe_jobs import prompts
from dpe_jobs.diagnosis import categorise, judge, weaknesses
from dpe_jobs.generation.agents import planner, validator, writer

FOLDER = Path(prompts.__file__).parent
PLACES = {
    "judge": {"question", "reference", "response", "code"},
    "categorise": {"taxonomy", "question"},
    "error": {"error_types", "question", "answer", "response"},
    "merge": {"category", "most", "lines"},
    "plan": {"category", "count", "aims", "examples", "feedback", "sources"},
    "select": {"category", "weakness", "facets", "question_type", "difficulty", "query"},
    "observe": {"category", "weakness"},
    "write": {"category", "weakness", "facets", "question_type", "difficulty", "examples", "observation"},
    "answer": {"question"},
    "verify": {"category", "weakness", "question"},
    "safety": {"answer", "question"},
}


def test_every_file_is_a_prompt_with_a_version_and_no_prompt_lacks_its_file():
    assert sorted(p.stem for p in FOLDER.glob("*.md")) == sorted(prompts.NAMES) == sorted(PLACES)
    for name in prompts.NAMES:
        data = (FOLDER / f"{name}.md").read_bytes()
        assert prompts.versions()[f"prompt/{name}"] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("name", PLACES)
def test_a_prompt_has_a_place_for_all_that_it_is_given(name):
    prompt = prompts.prompt(name)
    assert set(prompt.user.get_identifiers()) == PLACES[name]
    assert prompt.system
    assert "$" not in prompt.system, "only the user's part is filled in"


def test_what_is_put_in_is_not_read_as_a_template():
    text = prompts.prompt("merge").fill(category="$most {x} $$", most="3", lines="1. $lines")
    assert "$most {x} $$" in text
    assert "1. $lines" in text


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("judge", judge.Verdict),
        ("categorise", categorise._reply(["a", "b"])),
        ("error", weaknesses._look_reply(["a", "b"])),
        ("merge", weaknesses._merge_reply(3, 2)),
        ("plan", planner.plan_form(["render:x"], 2, 3)),
        ("observe", writer.Observation),
        ("write", writer.question_form(None)),
        ("answer", validator.Blind),
        ("verify", validator.Judgement),
    ],
)
def test_a_prompt_names_the_fields_of_its_reply(name, reply):
    schema = reply.model_json_schema()
    objects = [schema, *schema.get("$defs", {}).values()]
    for field in (f for o in objects for f in o["properties"]):
        assert f'"{field}"' in prompts.prompt(name).system
