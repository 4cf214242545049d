"""Real photographs, cut into tiles, and drawings; docs/quality.md has rates over many more of them."""

import io
import random
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance
from tests import pictures

from dpe_jobs.generation.quality.near import NearPictures, thumbnail
from dpe_jobs.generation.quality.registration import detail
from dpe_jobs.generation.render.counting import Counting
from dpe_jobs.generation.render.shapes import COLORS, SHAPES, Shapes

TILE = 90  # pixels


def tiles() -> list[Image.Image]:
    """Tiles of photographs that have something to see."""
    found = []
    for photograph in pictures.photographs().values():
        for y in range(0, photograph.height - TILE + 1, TILE):
            for x in range(0, photograph.width - TILE + 1, TILE):
                tile = photograph.crop((x, y, x + TILE, y + TILE))
                if detail(thumbnail(tile)[None].astype(np.float32))[0] >= 10:
                    found.append(tile)
    return found


def things(start: int, count: int) -> list[Image.Image]:
    knobs = {"asks": "kind", "number": "many", "occlusion": "none", "ground": "wood"}
    return [Counting().draw(knobs, random.Random(f"thing {n}")).image for n in range(start, start + count)]


def shapes(count: int) -> list[Image.Image]:
    rng = random.Random(0)
    return [
        Shapes().draw({"color": rng.choice(list(COLORS)), "shape": rng.choice(SHAPES)}, random.Random(f"{n}")).image
        for n in range(count)
    ]


def digits(count: int) -> list[Image.Image]:
    small = [Image.fromarray(pixels) for pixels in pictures.digits()[0][:count]]
    return [image.resize((64, 64), Image.Resampling.BICUBIC).convert("RGB") for image in small]


def resized(image: Image.Image, rng: random.Random) -> Image.Image:
    side = rng.choice([32, 48, 96, 128])
    return image.resize((side, side), rng.choice(list(Image.Resampling)))


def turned(image: Image.Image, rng: random.Random) -> Image.Image:
    return image.transpose(rng.choice(list(Image.Transpose)))


def recompressed(image: Image.Image, rng: random.Random) -> Image.Image:
    return saved(image, rng.choice(["JPEG", "WEBP"]), 50)


def saved(image: Image.Image, form: str, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.convert("RGB").save(out, form, quality=quality)
    return Image.open(out).convert("RGB")


def labelled(image: Image.Image) -> Image.Image:
    marked = image.copy()
    width, height = image.size
    place = (width - width // 3, height - height // 9, width - 2, height - 2)
    ImageDraw.Draw(marked).rectangle(place, fill="white")
    return marked


def cropped(image: Image.Image, part: float) -> Image.Image:
    width, height = image.size
    return image.crop((round(part * width), round(part * height / 2), width, round(height - part * height / 2)))


CHANGES = {
    "smaller": lambda i: i.resize((i.width // 2, i.height // 2), Image.Resampling.LANCZOS),
    "larger and squeezed": lambda i: i.resize((i.width * 2, i.height), Image.Resampling.BICUBIC),
    "jpeg": lambda i: saved(i, "JPEG", 40),
    "webp": lambda i: saved(i, "WEBP", 50),
    "mirrored": lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "upside down": lambda i: i.transpose(Image.Transpose.ROTATE_180),
    "turned": lambda i: i.transpose(Image.Transpose.ROTATE_90),
    "darker": lambda i: ImageEnhance.Brightness(i).enhance(0.8),
    "flatter": lambda i: ImageEnhance.Contrast(i).enhance(0.8),
    "grey": lambda i: i.convert("L"),
    "labelled": labelled,
    "cropped": lambda i: cropped(i, 0.05),
    "mirrored, cropped and saved": lambda i: saved(
        cropped(i.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 0.03), "JPEG", 60
    ),
}


@pytest.fixture(scope="module")
def photographs() -> Iterator[tuple[NearPictures, list[Image.Image]]]:
    pictures = tiles()[::2]
    with NearPictures() as index:
        for number, picture in enumerate(pictures):
            index.add(f"tile {number}", picture)
        yield index, pictures


@pytest.mark.parametrize("change", CHANGES)
def test_a_photograph_is_known_again_however_it_was_changed(photographs, change):
    index, pictures = photographs
    found = [index.find(CHANGES[change](picture)) for picture in pictures]
    names = [None if match is None else match.name for match in found]
    assert names == [f"tile {number}" for number in range(len(pictures))]


def test_other_photographs_and_drawings_are_not_taken_for_it(photographs):
    index, _ = photographs
    neighbours = [
        photograph.crop((x, y, x + TILE, y + TILE))
        for photograph in pictures.photographs().values()
        for y in range(TILE // 2, photograph.height - TILE + 1, TILE)
        for x in range(TILE // 2, photograph.width - TILE + 1, TILE)
    ]
    assert [m for m in (index.find(i) for i in (*neighbours, *things(0, 10))) if m is not None] == []


def test_a_drawing_of_many_things_is_known_again_and_its_siblings_are_not_taken_for_it():
    with NearPictures() as index:
        for number, picture in enumerate(things(0, 30)):
            index.add(str(number), picture)
        for number, picture in enumerate(things(0, 8)):
            match = index.find(saved(CHANGES["mirrored"](picture), "JPEG", 60))
            assert match is not None
            assert match.name == str(number)
        assert [index.find(picture) for picture in things(30, 20)] == [None] * 20


def test_a_small_drawing_is_known_again_in_another_size_form_and_turn():
    rng, pictures = random.Random(0), [*shapes(120), *digits(40)]
    with NearPictures() as index:
        for number, picture in enumerate(pictures):
            index.add(str(number), picture)
        for picture in pictures[::2]:
            copy = picture
            for change in rng.sample([resized, turned, recompressed], 2):
                copy = change(copy, rng)
            assert index.find(copy) is not None


def test_another_place_or_colour_of_a_single_shape_is_another_picture():
    pictures = shapes(200)
    with NearPictures() as index:
        for number, picture in enumerate(pictures[:120]):
            index.add(str(number), picture)
        taken = [p for p in pictures[120:] if index.find(p) is not None]
        assert len(taken) <= 4  # some are all but the same


def test_a_plain_picture_is_like_no_other_but_itself(photographs):
    index, _ = photographs
    assert index.find(Image.new("RGB", (50, 50), "white")) is None
    with NearPictures() as plain:
        plain.add("white", Image.new("RGB", (50, 50), "white"))
        assert plain.find(Image.new("RGB", (80, 20), "white")) is not None
        assert plain.find(Image.new("RGB", (80, 20), "navy")) is None


def test_an_empty_index_holds_nothing():
    with NearPictures() as index:
        assert index.find(things(0, 1)[0]) is None
        assert len(index) == 0
