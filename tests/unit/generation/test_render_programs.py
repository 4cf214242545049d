"""What every program that hands out a display list promises, by hundreds of drawings each."""

import hashlib
import importlib
import io
import itertools
import os
import random
import subprocess
import sys
import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from PIL import ImageDraw

from dpe_jobs.generation.dedup import Seen, pixel_digest, thumbnail
from dpe_jobs.generation.planner import choose_knobs
from dpe_jobs.generation.render import Drawn, SceneProgram, legible
from dpe_jobs.generation.render.scene import loads
from dpe_jobs.generation.validator import trouble

ROOT = Path(__file__).parents[3]
DRAWS = 100  # of each category
LARGEST_PNG = 400_000  # bytes


def _programs() -> list[SceneProgram]:
    """All that pyproject.toml names, but those that are read from their pixels."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = []
    for entry in project["entry-points"]["dpe.generators"].values():
        module, name = entry.split(":")
        program = getattr(importlib.import_module(module), name)()
        if isinstance(program, SceneProgram):
            found.append(program)
    return found


PROGRAMS = _programs()
CATEGORIES = [(program, category) for program in PROGRAMS for category in program.categories()]
every_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
every_category = pytest.mark.parametrize(
    ("program", "category"), CATEGORIES, ids=[f"{program.name}-{category}" for program, category in CATEGORIES]
)


@cache
def draws(program: SceneProgram, category: str) -> list[tuple[dict[str, str], Drawn]]:
    """As the planner asks for them."""
    found = []
    for number in range(DRAWS):
        knobs = choose_knobs(program.knobs(category), number, 11)
        found.append((knobs, program.draw(knobs, random.Random(f"{category} {number}"))))
    return found


@every_category
def test_every_answer_is_found_again_in_what_was_drawn_and_every_picture_can_be_read(program, category):
    found = [trouble(program, drawn, knobs, drawn.written) for knobs, drawn in draws(program, category)]
    assert [f for f in found if f] == []


@every_category
def test_any_knobs_go_together_and_are_honoured(program, category):
    knobs = program.knobs(category)
    for number, values in enumerate(itertools.product(*knobs.values())):
        wanted = dict(zip(knobs, values, strict=True))
        drawn = program.draw(wanted, random.Random(f"any {number}"))
        assert wanted.items() <= drawn.facts.items()
        assert trouble(program, drawn, wanted, drawn.written) is None


@every_category
def test_facets_are_the_declared_ones_and_have_declared_values(program, category):
    declared = program.facets(category)
    assert program.knobs(category).items() <= declared.items()
    for _, drawn in draws(program, category):
        assert drawn.facts.keys() == declared.keys()
        assert [f for f, value in drawn.facts.items() if value not in declared[f]] == []


@every_category
def test_questions_are_sentences_and_answers_vary(program, category):
    written = [drawn.written for _, drawn in draws(program, category)]
    assert all(w.question[0].isupper() and w.question.endswith("?") and "  " not in w.question for w in written)
    assert all((w.answer in w.choices) == bool(w.choices) for w in written)
    answers = [w.answer for w in written]
    assert len(set(answers)) >= 12
    assert max(answers.count(a) for a in set(answers)) <= 0.35 * len(answers)


@every_category
def test_draws_are_hardly_ever_alike(program, category):
    seen, repeated, near = Seen(), 0, 0
    for number, (_, drawn) in enumerate(draws(program, category)):
        picture = (pixel_digest(drawn.image), thumbnail(drawn.image))
        asked, shown = ("asked", number, drawn.written.question, *picture), ("shown", number, "", *picture)
        seen.add(*asked)
        seen.add(*shown)
        repeated += seen.repeats(*asked) is not None
        near += seen.repeats(*shown) is not None
    assert repeated <= 0.02 * DRAWS
    assert near <= 0.05 * DRAWS, "a new picture would be taken for one of the probe"


@every_category
def test_pictures_are_of_bounded_size(program, category):
    for _, drawn in draws(program, category):
        width, height = drawn.image.size
        assert min(width, height) >= 200
        assert width * height <= legible.MOST_PIXELS
        out = io.BytesIO()
        drawn.image.save(out, "PNG")
        assert len(out.getvalue()) <= LARGEST_PNG


def digest(program: SceneProgram, count: int = 12) -> str:
    """Of pictures, display lists and questions."""
    found = hashlib.sha256()
    for category in program.categories():
        for number in range(count):
            knobs = choose_knobs(program.knobs(category), number, 5)
            drawn = program.draw(knobs, random.Random(number))
            found.update(drawn.image.tobytes() + drawn.scene.dumps().encode())
            found.update(repr((drawn.written, sorted(drawn.facts.items()))).encode())
    return found.hexdigest()


def test_another_process_draws_the_same_byte_for_byte():
    script = (
        "from tests.unit.generation.test_render_programs import PROGRAMS, digest\n"
        "print(*(digest(program) for program in reversed(PROGRAMS)))"
    )
    path = os.pathsep.join(str(ROOT / part) for part in ("crds", "operator", "jobs", "."))
    other = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert other.stdout.split() == [digest(program) for program in reversed(PROGRAMS)]


@every_program
def test_display_list_survives_its_json(program):
    for category in program.categories():
        _, drawn = draws(program, category)[0]
        again = loads(drawn.scene.dumps())
        assert loads(again.dumps()) == again
        assert [m.text for m in again.marks] == [m.text for m in drawn.scene.marks]


def without(drawn: Drawn, place: int) -> Drawn:
    """The picture with one mark of the display list painted over."""
    image = drawn.image.copy()
    left, top, right, bottom = drawn.scene.marks[place].box
    ImageDraw.Draw(image).rectangle((left - 2, top - 2, right + 2, bottom + 2), fill="#ff00ff")
    return replace(drawn, image=image)


@every_category
def test_a_picture_that_lacks_what_the_display_list_says_is_refused(program, category):
    rng = random.Random(category)
    for knobs, drawn in draws(program, category)[:20]:
        large = [
            i
            for i, m in enumerate(drawn.scene.marks)
            if m.kind != "line" and (m.box[2] - m.box[0]) * (m.box[3] - m.box[1]) > 150
        ]
        found = trouble(program, without(drawn, rng.choice(large)), knobs, drawn.written)
        assert found is not None
        assert found[0] in ("Misdrawn", "Illegible")


@every_category
def test_a_wrong_answer_is_found_out(program, category):
    for knobs, drawn in draws(program, category)[:30]:
        written = drawn.written
        if written.choices:
            wrong = next(c for c in written.choices if c != written.answer)
        elif written.answer in ("yes", "no"):
            wrong = "no" if written.answer == "yes" else "yes"
        else:
            wrong = "97531"
        found = trouble(program, drawn, knobs, replace(written, answer=wrong))
        assert found is not None
        assert found[0] == "WrongAnswer"


@every_program
def test_a_question_about_something_else_is_unanswerable(program):
    for category in program.categories():
        _, drawn = draws(program, category)[0]
        for question in ("What is the capital of the moon?", "How tall is the giraffe?"):
            with pytest.raises(ValueError):
                program.solve(drawn.scene, question, ())
