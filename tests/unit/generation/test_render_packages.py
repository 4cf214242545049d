"""Programs of other packages, and what the pages say of ours."""

import random
import re
from pathlib import Path

import pytest
from tests.fakes.openai_server import serving
from tests.unit.generation import world
from tests.unit.generation.test_render_programs import PROGRAMS, ROOT

from dpe_api.artifacts import AnswerType
from dpe_api.generation_spec import Source, SourceKind
from dpe_jobs.generation.render import SceneProgram, load_programs
from dpe_jobs.generation.render.__main__ import describe, main
from dpe_jobs.generation.render.shapes import Shapes
from dpe_jobs.generation.run import run
from dpe_jobs.generation.validator import trouble
from dpe_jobs.graders import grade
from dpe_jobs.questions import read_questions

PAGE = (ROOT / "docs" / "generation.md").read_text()


@pytest.fixture
def dice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's example, as pip would have installed it."""
    own = PAGE.partition("## A program of your own")[2]
    code = re.search(r"```python\n(.*?)```", own, re.DOTALL)
    entry = re.search(r"```toml\n(.*?)```", own, re.DOTALL)
    assert code
    assert entry
    site = tmp_path / "packages"
    package, info = site / "my_package", site / "my_package-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_text("")
    (package / "dice.py").write_text(code[1])
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    lines = entry[1].replace('[project.entry-points."dpe.generators"]', "[dpe.generators]").replace('"', "")
    (info / "entry_points.txt").write_text(lines)
    monkeypatch.syspath_prepend(str(site))


def test_a_program_of_another_package_is_found_and_checked_like_ours(dice):
    sources = [Source(kind=SourceKind.RENDER, program=name) for name in ("shapes", "dice")]
    (_, program) = load_programs(sources)
    assert isinstance(program, SceneProgram)
    for number in range(30):
        knobs = {"pips": str(1 + number % 6), "color": "#1f5f8b"}
        drawn = program.draw(knobs, random.Random(number))
        assert trouble(program, drawn, knobs, drawn.written) is None
        assert drawn.written.answer == knobs["pips"]


def test_a_stage_makes_samples_with_a_program_of_another_package(dice, store):
    world.fill(store, {"dice": 6})
    with serving(lambda asked: ["3" if i < 5 else "4" for i in range(asked.n)]) as model:
        generation = {"sources": [{"kind": "render", "program": "dice"}], "target_samples": 6, "max_candidates": 60}
        run(world.launch(model.url, generation=generation), store)
    kept = list(read_questions(store, f"{world.OUT}/samples"))
    assert [(q.answer, q.source, q.licence) for q in kept if q.answer in "34"] == [
        (q.answer, "render:dice", "MIT") for q in kept
    ]
    assert len(kept) == 6


def test_all_programs_together_fill_every_category_with_right_answers(store, monkeypatch):
    wanted = {category: 6 for program in PROGRAMS for category in program.categories()}
    monkeypatch.setattr(world, "STRONG", set(wanted))  # no model has to solve them
    world.fill(store, wanted)
    sources = [{"kind": "render", "program": program.name} for program in PROGRAMS]
    total = sum(wanted.values())
    generation = {"sources": sources, "target_samples": total, "max_candidates": 2 * total}
    with serving(lambda asked: []) as model:
        run(world.launch(model.url, generation=generation), store)
    said = world.summary(store)
    assert (said.kept, said.shortfall) == (total, 0)
    kept = list(read_questions(store, f"{world.OUT}/samples"))
    assert {q.category for q in kept} == set(wanted)
    assert all(grade(q.answer, q.answer, q.answer_type, q.choices) for q in kept)
    assert any(q.answer_type is AnswerType.CHOICE and len(q.choices) >= 2 for q in kept)
    for question in kept:
        (program,) = [p for p in PROGRAMS if f"render:{p.name}" == question.source]
        assert question.facets.keys() == program.facets(question.category).keys()


@pytest.mark.parametrize("program", [Shapes(), *PROGRAMS], ids=lambda program: program.name)
def test_the_page_shows_the_knobs_and_facets_that_a_program_has(program):
    section = PAGE.split(f"\n### {program.name}\n")[1].split("\n#")[0]
    assert "\n".join(describe(program)) in section


def test_the_command_prints_what_is_installed(capsys):
    main([])
    printed = capsys.readouterr().out
    assert all(f"### {program.name}\n" in printed for program in [Shapes(), *PROGRAMS])
    main(["charts"])
    assert capsys.readouterr().out.startswith("### charts\n")
