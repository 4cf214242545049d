"""Programmatic edits: what they make, what they refuse, and whether an independent reader finds the same answers."""

import random

import pytest
from PIL import Image
from tests.pictures import photographs
from tests.unit.generation.agents.given import target

from dpe_api.generation_spec import Source, SourceKind
from dpe_api.quality_spec import Quality
from dpe_jobs.generation import validator, writer
from dpe_jobs.generation.edit import Edit, edited, licence_of, load_edits, make, reader
from dpe_jobs.generation.edit.cropping import Crop
from dpe_jobs.generation.edit.lettering import OverlayText
from dpe_jobs.generation.edit.quarters import Blur, Occlude
from dpe_jobs.generation.edit.recolour import Recolour
from dpe_jobs.generation.edit.several import Compose, Duplicate
from dpe_jobs.generation.edit.turning import Flip, Rotate
from dpe_jobs.generation.images import NoImage, Origin, Picture
from dpe_jobs.generation.planner import choose_knobs
from dpe_jobs.generation.quality.inspector import Inspector
from dpe_jobs.generation.quality.reserved import Reserved
from dpe_jobs.generation.render import TRUTH
from dpe_jobs.generation.render.shapes import Shapes
from dpe_jobs.generation.roles import Rejected
from dpe_jobs.generation.sources import EditSupply
from dpe_jobs.generation.workbench import Workbench
from dpe_jobs.graders import grade
from dpe_jobs.runtime import BadConfig

EDITS = (Recolour, Flip, Rotate, Crop, Occlude, Compose, Duplicate, OverlayText, Blur)
CASES = [(edit, category) for edit in EDITS for category in edit().categories()]
TRIES = 12
SHAPES = Shapes()


def photograph(rng: random.Random, licence: str = "CC0-1.0") -> Picture:
    """A square part of a photograph that nobody drew."""
    whole, side = rng.choice(list(photographs().values())), rng.randint(120, 200)
    x, y = rng.randint(0, whole.width - side), rng.randint(0, whole.height - side)
    return Picture(
        whole.crop((x, y, x + side, y + side)), Origin(SourceKind.POOL, "pool:s3://b/p", f"{x}-{y}", licence)
    )


def one_shape(facts: dict[str, str], rng: random.Random) -> Picture:
    knobs = {name: rng.choice(values) for name, values in SHAPES.vocabulary.items()} | facts
    drawn = SHAPES.draw(knobs, rng)
    return Picture(drawn.image, Origin(SourceKind.RENDER, "render:shapes", "1", "Apache-2.0"), drawn.facts)


def attempt(edit: Edit, category: str, number: int) -> tuple[Picture, writer.Written, dict[str, str]]:
    rng = random.Random(number)
    knobs = choose_knobs(edit.knobs(category), number, 1)
    originals = [one_shape(dict(facts), rng) if facts else photograph(rng) for facts in edit.originals(category, knobs)]
    picture = make(edit, category, originals, knobs, rng)
    asked = writer.write(edit, rng.choice(edit.forms(category)), picture.facts, knobs.get(TRUTH, "yes"), rng)
    return picture, asked, knobs


@pytest.mark.parametrize(("kind", "category"), CASES, ids=[f"{e.name}-{c}" for e, c in CASES])
def test_an_independent_reader_finds_the_answer_in_the_edited_picture_alone(kind, category):
    edit, refused, answers = kind(), 0, set()
    for number in range(TRIES):
        try:
            picture, asked, knobs = attempt(edit, category, number)
        except NoImage:
            refused += 1
            continue
        assert validator.off_target(knobs, picture.facts) is None
        assert validator.malformed(asked) is None
        read = edit.answer(picture.image, asked.question)
        assert grade(read, asked.answer, asked.answer_type), (number, asked, read)
        answers.add(asked.answer)
    assert refused <= TRIES // 2, "an edit that refuses most pictures is of no use"
    assert len(answers) > 1


class Given:
    """Originals in the order in which they are asked for; the last one for ever."""

    name, share, endless = "pool:given", 1.0, True

    def __init__(self, *pictures: Picture) -> None:
        self._pictures = list(pictures)

    async def original(self, category: str, facts: object, seed: int, ordinal: int, who: str) -> Picture:
        return self._pictures.pop(0) if len(self._pictures) > 1 else self._pictures[0]

    def need(self, category: str, weight: float, who: str) -> None:
        return


async def test_an_original_that_the_probe_has_is_replaced_by_another_one_and_never_edited():
    known, other = (photograph(random.Random(number)) for number in (1, 2))
    wanted = target(kind=SourceKind.EDIT, source="edit:flip", category="mirroring", knobs={"mirrored": "horizontally"})
    with Reserved() as reserved, Workbench() as workbench:
        reserved.add("probe row 1", [known.image], "what is it?")
        refuses = Inspector(Quality(), reserved, answer_tokens=4, max_pixels=1_003_520).original
        edited = await EditSupply(Flip(), [Given(known, other)], 1.0, workbench, refuses).select(wanted)
        assert [parent.id for parent in edited.origin.parents] == [other.origin.id]
        with pytest.raises(Rejected) as caught:
            await EditSupply(Flip(), [Given(known)], 1.0, workbench, refuses).select(wanted)
    assert caught.value.rejection == ("Contaminated", "an original: the picture is that of probe row 1")


@pytest.mark.parametrize(("kind", "category"), CASES, ids=[f"{e.name}-{c}" for e, c in CASES])
def test_the_same_draw_edits_the_same_way(kind, category):
    for number in range(TRIES):
        try:
            first, second = attempt(kind(), category, number), attempt(kind(), category, number)
        except NoImage:
            continue
        assert first[0].image.tobytes() == second[0].image.tobytes()
        assert first[0].origin == second[0].origin
        return
    pytest.fail("no picture was edited")


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ("is the right picture the left one mirrored horizontally or vertically?", "not two square pictures"),
        ("which quarter of the picture is covered by a cyan box: top left or top right?", "0 quarters are cyan"),
        ("which quarter of the picture is covered by a box: top left or top right?", "names 0 colours"),
        ("which quarter of the picture is out of focus: top left or top right?", "about as sharp"),
        ("how many shapes are in the picture?", "nothing in the picture"),
        ("what color is the shape on the left?", "nothing in the picture"),
        ("what word is written on the yellow label?", "no yellow label"),
        ("who painted this?", "none of the edits"),
    ],
)
def test_a_question_that_supposes_what_is_not_there_has_no_answer(question, why):
    with pytest.raises(ValueError, match=why):
        reader.answer(Image.new("RGB", (128, 96), (200, 190, 180)), question)


def test_a_recoloured_shape_keeps_its_smooth_edge_and_its_ground():
    rng = random.Random(3)
    original = one_shape({"shape": "circle", "color": "red"}, rng)
    picture = make(Recolour(), "color_fine", [original], {"shape": "circle", "color": "teal"}, rng)
    assert picture.facts == {"shape": "circle", "color": "teal"}
    assert picture.image.getpixel((0, 0)) == original.image.getpixel((0, 0))
    before, after = (len(set(image.get_flattened_data())) for image in (original.image, picture.image))
    assert before * 0.8 <= after <= before * 1.2, "as many shades between shape and ground"


def test_covering_a_shape_destroys_the_fact_of_its_shape_and_no_question_supposes_it():
    edit = Occlude()
    picture, _, _ = attempt(edit, "color_fine", 1)
    assert set(picture.facts) == {"color"}
    assert all("shape}" not in form.text and form.asks != "shape" for form in edit.forms("color_fine"))


def test_an_edited_picture_names_its_originals_and_the_calls_that_made_it():
    rng = random.Random(0)
    knobs = {
        "side": "left", "asked_color": "red", "asked_shape": "circle", "other_color": "blue", "other_shape": "triangle",
    }  # fmt: skip
    edit = Compose()
    originals = [one_shape(dict(facts), rng) for facts in edit.originals("color_where", knobs)]
    picture = make(edit, "color_where", originals, knobs, rng)
    assert picture.origin.source == "edit:compose"
    assert picture.origin.parents == tuple(original.origin for original in originals)
    assert picture.tool_calls[-1]["tool"] == "edit:compose"
    assert picture.tool_calls[-1]["arguments"] == knobs


def test_a_picture_without_the_facts_that_an_edit_builds_on_is_refused():
    rng = random.Random(0)
    with pytest.raises(NoImage, match=r"shape is circle; that of pool.* is unknown"):
        make(Recolour(), "color", [photograph(rng)], {"shape": "circle", "color": "red"}, rng)


@pytest.mark.parametrize(
    ("kind", "category", "image", "why"),
    [
        (Flip, "mirroring", Image.new("RGB", (200, 200), "white"), "nearly the same"),
        (Rotate, "rotation", Image.new("RGB", (20, 20), "white"), "20x20 pixels"),
        (Crop, "part", Image.new("RGB", (200, 200), "green"), "nearly like another part"),
        (Occlude, "covered", Image.new("RGB", (200, 200), (250, 5, 250)), "magenta of its own"),
        (OverlayText, "reading", Image.new("RGB", (200, 200), (255, 214, 0)), "yellow of its own"),
        (Blur, "focus", Image.new("RGB", (200, 200), "gray"), "not sharp"),
    ],
)
def test_a_picture_of_which_no_answer_would_be_certain_is_refused(kind, category, image, why):
    edit, rng = kind(), random.Random(0)
    knobs = {name: values[0] for name, values in edit.knobs(category).items()}
    with pytest.raises(NoImage, match=why):
        make(edit, category, [Picture(image, Origin(SourceKind.POOL, "pool:p", "1", "CC0-1.0"))], knobs, rng)


@pytest.mark.parametrize(
    ("licences", "joint"),
    [
        (("CC0-1.0",), "CC0-1.0"),
        (("MIT", "CC-BY-4.0", "MIT"), "CC-BY-4.0 AND MIT"),
        (("MIT", ""), ""),
    ],
)
def test_an_edited_picture_has_the_licences_of_all_its_originals(licences, joint):
    assert licence_of([Origin(SourceKind.POOL, "pool:p", str(i), text) for i, text in enumerate(licences)]) == joint


def test_a_licence_that_allows_no_derivatives_is_kept():
    rng = random.Random(0)
    with pytest.raises(NoImage, match=r"CC-BY-NC-ND-4[.]0 allows no edited copies"):
        make(Blur(), "focus", [photograph(rng, "CC-BY-NC-ND-4.0")], {"blurred": "top left"}, rng)


def test_edits_are_loaded_by_name_and_an_unknown_one_is_told_with_those_there_are():
    names = [edit.name for edit in (kind() for kind in EDITS)]
    loaded = load_edits([Source(kind=SourceKind.EDIT, program=name) for name in names])
    assert [edit.name for edit in loaded] == names
    with pytest.raises(BadConfig, match=r"sources\[0\]\.program is 'sharpen'; installed edits are blur, compose"):
        load_edits([Source(kind=SourceKind.EDIT, program="sharpen")])
    assert edited("x", photographs()["dahlia flower"], [], {}).source == "edit:x"
