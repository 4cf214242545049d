import io
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tests.fakes.image_files import file, photo, png_bomb, png_text_bomb

from dpe_jobs.generation.fetching.decoding import KEPT_PIXELS, decode
from dpe_jobs.generation.fetching.reasons import NotFetched, Reason

MOST = 40_000_000
PHOTO = photo()


def corner(image: Image.Image) -> str:
    """Which colour is at the upper left: of a photo that stands upright, red."""
    red, _, blue = np.asarray(image)[:10, :10].mean(axis=(0, 1))
    return "red" if red > blue + 50 else "blue" if blue > red + 50 else "neither"


def reason(data: bytes, most: int = MOST) -> Reason:
    with pytest.raises(NotFetched) as refused:
        decode(data, most)
    return refused.value.reason


MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "GIF": ("L", "P", "RGB"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
}


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in MODES.items() for mode in modes])
def test_every_mode_of_every_format_becomes_rgb_that_looks_the_same(kind, mode):
    if mode == "I;16":
        encoded = Image.fromarray(np.asarray(PHOTO.convert("L")).astype(np.uint16) * 257)
        expected = PHOTO.convert("L").convert("RGB")
    else:
        encoded = PHOTO.convert(mode)
        expected = encoded.convert("RGB")
    image = decode(file(encoded, kind), MOST)
    assert (image.mode, image.size) == ("RGB", PHOTO.size)
    difference = np.abs(np.asarray(image).astype(int) - np.asarray(expected).astype(int)).mean()
    assert difference < (12 if kind == "GIF" else 6)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_stands_on_white(kind):
    layer = PHOTO.convert("RGBA")
    layer.putalpha(0)
    assert np.asarray(decode(file(layer, kind, lossless=True), MOST)).min() == 255


def test_a_palette_with_a_transparent_colour_stands_on_white():
    layer = Image.new("P", (64, 64), 0)
    layer.putpalette([10, 200, 10] + [0] * 765)
    assert np.asarray(decode(file(layer, "GIF", transparency=0), MOST)).min() == 255
    assert np.asarray(decode(file(layer, "PNG", transparency=0), MOST)).min() == 255


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(kind):
    frames = [photo(seed=n).transpose(Image.Transpose.ROTATE_180) for n in range(3)]
    data = file(PHOTO, kind, save_all=True, append_images=frames, duration=50)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.n_frames == 4
    assert corner(decode(data, MOST)) == "red"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_camera_that_was_turned_gives_an_upright_picture(kind, orientation):
    turned = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = PHOTO if turned is None else PHOTO.transpose(turned)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(file(stored, kind, exif=exif.tobytes()), MOST)
    assert (image.size, corner(image)) == (PHOTO.size, "red")


def test_damaged_exif_is_no_reason_to_lose_a_picture():
    data = file(PHOTO, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(30))
    assert decode(data, MOST).size == PHOTO.size


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_tag_of_the_wrong_type_beside_the_orientation_does_not_matter(kind):
    entries = struct.pack(">HHHIHH", 2, 0x0112, 3, 1, 6, 0)  # Orientation, SHORT: turned clockwise
    entries += struct.pack(">HHII", 0x010F, 5, 1, 38)  # Make, a RATIONAL where a text belongs
    exif = b"Exif\0\0MM\0*" + struct.pack(">I", 8) + entries + bytes(4) + struct.pack(">II", 72, 1)
    stored = PHOTO.transpose(Image.Transpose.ROTATE_90)
    image = decode(file(stored, kind, exif=exif), MOST)
    assert (image.size, corner(image)) == (PHOTO.size, "red")


def test_exif_that_no_reader_understands_is_no_reason_to_lose_a_picture():
    note = PngInfo()
    note.add_text("Raw profile type exif", "\nexif\n 4\nno hexadecimal")
    assert corner(decode(file(PHOTO, "PNG", pnginfo=note), MOST)) == "red"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_truncated_file_is_broken(kind):
    data = file(PHOTO, kind)
    assert reason(data[: len(data) * 2 // 3]) is Reason.BROKEN


def test_other_formats_are_not_even_tried():
    for kind in ("TIFF", "PPM", "ICO", "TGA", "JPEG2000", "PDF", "EPS"):
        assert reason(file(PHOTO, kind)) is Reason.NOT_AN_IMAGE, kind
    assert reason(b"<svg xmlns='http://www.w3.org/2000/svg'/>") is Reason.NOT_AN_IMAGE


def test_a_bomb_is_refused_before_it_is_unpacked():
    bomb = png_bomb(6_500)
    assert len(bomb) < 100_000
    tracemalloc.start()
    assert reason(bomb) is Reason.TOO_MANY_PIXELS
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_a_comment_that_is_a_bomb_is_refused():
    assert reason(png_text_bomb()) is Reason.BROKEN


def test_a_size_that_is_a_lie_is_broken_or_refused_and_never_allocated():
    data = bytearray(file(PHOTO, "BMP"))
    data[18:26] = (40_000).to_bytes(4, "little") * 2
    assert reason(bytes(data)) is Reason.TOO_MANY_PIXELS


@pytest.mark.parametrize("size", [(1, 1), (31, 500), (64, 1300)])
def test_counters_and_rules_are_too_small(size):
    assert reason(file(Image.new("RGB", size))) is Reason.TOO_SMALL


@pytest.mark.parametrize(("kind", "quick"), [("PNG", {"compress_level": 1}), ("JPEG", {})])
def test_a_large_picture_is_scaled_down_and_keeps_its_proportions(kind, quick):
    image = decode(file(PHOTO.resize((2700, 1800)), kind, **quick), MOST)
    assert KEPT_PIXELS * 0.98 < image.width * image.height <= KEPT_PIXELS
    assert abs(image.width / image.height - 3 / 2) < 0.01
    assert corner(image) == "red"


GOOD = {kind: file(PHOTO, kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP")}


@settings(max_examples=100)
@given(
    st.sampled_from(sorted(GOOD)),
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6),
    st.integers(0, 10_000),
)
def test_damage_of_any_kind_is_a_picture_or_a_named_reason(kind, changes, length):
    data = bytearray(GOOD[kind])
    for place, new in changes:
        at = place % len(data)
        data[at : at + len(new)] = new
    for damaged in (bytes(data), bytes(data[: length % len(data)])):
        try:
            image = decode(damaged, 1_000_000)
        except NotFetched:
            continue
        assert image.mode == "RGB"
