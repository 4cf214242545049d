import random
from pathlib import Path

import pytest
from examples.shapes.data import category_of
from PIL import Image
from tests.pictures import photographs

from dpe_api.artifacts import AnswerType
from dpe_api.generation_spec import Source, SourceKind
from dpe_jobs.generation.planner import choose_knobs
from dpe_jobs.generation.render import Drawn, Form, Written, load_programs
from dpe_jobs.generation.render.shapes import COLORS, SHAPES, Shapes
from dpe_jobs.generation.validator import trouble
from dpe_jobs.generation.writer import ask, write
from dpe_jobs.runtime import BadConfig

PROGRAM = Shapes()


@pytest.mark.parametrize("category", PROGRAM.categories())
def test_every_drawn_question_is_of_its_category_and_answered_alike_by_a_second_look(category):
    answers = set()
    for number in range(150):
        rng = random.Random(f"{category}{number}")
        knobs = choose_knobs(PROGRAM.knobs(category), number, 3)
        drawn = PROGRAM.draw(knobs, rng)
        written = ask(PROGRAM, category, knobs, drawn, rng)
        assert trouble(PROGRAM, drawn, knobs, written) is None
        assert category_of(written.question, written.answer) == category
        answers.add(written.answer)
    assert len(answers) == {"color": 5, "color_fine": 3, "shape": 3, "shape_ref": 3}.get(category, 2)


def no_shapes() -> dict[str, Image.Image]:
    noise = Image.effect_noise((300, 200), 80).convert("RGB")
    two = Image.new("RGB", (64, 64), "white")
    two.paste("red", (4, 4, 20, 20))
    two.paste("red", (40, 40, 60, 60))
    made = {"noise": noise, "gradient": Image.linear_gradient("L").convert("RGB"), "two shapes": two}
    return {**photographs(), **made, "large photograph": photographs()["dahlia flower"].resize((2400, 1600))}


@pytest.mark.parametrize("shown", no_shapes())
def test_what_is_no_single_shape_is_not_read_as_one(shown):
    with pytest.raises(ValueError, match="no picture of one shape"):
        PROGRAM.read(no_shapes()[shown])


@pytest.mark.parametrize("side", [64, 1500])
def test_every_drawn_shape_is_read_as_what_it_is(side):
    for number in range(48):
        knobs = {"color": list(COLORS)[number % 8], "shape": SHAPES[number // 8 % 3]}
        drawn = PROGRAM.draw(knobs, random.Random(number)).image
        assert PROGRAM.read(drawn.resize((side, side))) == knobs


@pytest.mark.parametrize(
    ("kind", "truth", "answer"),
    [("exists", "yes", "yes"), ("exists", "no", "no"), ("absent", "yes", "no"), ("absent", "no", "yes")],
)
def test_answer_about_existence_follows_truth_and_negation(kind, truth, answer):
    form = Form("is there a {named}?", "shape", kind)
    written = write(PROGRAM, form, {"shape": "circle", "color": "red"}, truth, random.Random(0))
    assert (written.answer, written.answer_type) == (answer, AnswerType.YES_NO)
    assert ("circle" in written.question) == (truth == "yes")


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("what color is the shape?", "teal", None),
        ("what color is the shape?", "green", "WrongAnswer"),
        ("what color is the circle?", "teal", "Unanswerable"),
        ("how many shapes are there?", "1", "Unanswerable"),
        ("what color is the {shape}?", "teal", "Malformed"),
        ("what color is the shape", "teal", "Malformed"),
        ("what color is\nthe shape?", "teal", "Malformed"),
        ("what color is the shape?", " ", "Malformed"),
    ],
)
def test_validator_finds_what_is_wrong_without_looking_at_the_answer_first(question, answer, reason):
    knobs = {"color": "teal", "shape": "triangle"}
    drawn = PROGRAM.draw(knobs, random.Random(0))
    found = trouble(PROGRAM, drawn, knobs, Written(question, answer, AnswerType.EXACT))
    assert (found and found[0]) == reason


def test_a_program_that_ignores_its_knobs_is_off_target():
    drawn = PROGRAM.draw({"color": "red", "shape": "circle"}, random.Random(0))
    written = Written("what color is the shape?", "red", AnswerType.EXACT)
    planned = {"color": "teal", "shape": "circle"}
    found = trouble(PROGRAM, drawn, planned, written)
    assert found == ("OffTarget", "color is red, planned was teal")


def test_an_empty_picture_is_unanswerable():
    written = Written("what color is the shape?", "red", AnswerType.EXACT)
    found = trouble(PROGRAM, Drawn(Image.new("RGB", (64, 64), "white"), {}), {}, written)
    assert found == ("Unanswerable", "there is nothing in the picture")


def test_unknown_program_names_the_field_and_what_is_installed():
    sources = [Source(kind=SourceKind.RENDER, program="shapes"), Source(kind=SourceKind.RENDER, program="murals")]
    with pytest.raises(BadConfig, match=r"spec\.generation\.sources\[1\]\.program is 'murals'; installed are .*shapes"):
        load_programs(sources)


def test_an_entry_point_that_is_no_generator_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    info = tmp_path / "other" / "other-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[dpe.generators]\nodd = collections:OrderedDict\n")
    monkeypatch.syspath_prepend(str(info.parent))
    with pytest.raises(
        BadConfig, match="collections:OrderedDict is no generator: it needs categories, draw, knobs, licence"
    ):
        load_programs([Source(kind=SourceKind.RENDER, program="odd")])
