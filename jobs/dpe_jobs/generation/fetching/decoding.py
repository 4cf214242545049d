"""Pictures out of bytes from strangers: told by their first bytes, bounded before they are decoded, upright, RGB."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from dpe_jobs.generation.fetching.reasons import NotFetched, Reason
from dpe_jobs.upright import upright

MIN_SIDE = 32  # pixels; smaller ones are icons and counters
KEPT_PIXELS = 4 * 1024 * 1024  # a picture is scaled down to this: no model sees more of it, and memory is finite
_LONGEST_STRIP = 20  # a side this many times the other is a banner or a rule
_MAGIC = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF87a": "GIF", b"GIF89a": "GIF", b"BM": "BMP"}
HEAD = 16  # bytes that tell the format
# Pillow's decoders raise these for damaged files; a bomb is refused by its size before
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error, MemoryError)


def sniff(head: bytes) -> str:
    """Format by the first HEAD bytes, as Pillow calls it. NotFetched when it is none that is taken."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    looks = {b"<": "HTML, SVG or XML", b"{": "JSON", b"%PDF": "PDF"}
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    like = next((name for begin, name in looks.items() if start.startswith(begin)), "no image of a known format")
    raise NotFetched(Reason.NOT_AN_IMAGE, f"its first bytes are those of {like} ({head[:HEAD]!r})")


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """The first frame, RGB and upright, transparency on white, of at most KEPT_PIXELS. NotFetched says what is wrong.

    `max_pixels` bounds width times height as the file declares them, before anything is unpacked.
    """
    kind = sniff(data[:HEAD])
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as opened:
            _check_size(opened.size, max_pixels)
            if kind == "JPEG":
                opened.draft("RGB", _fitting(opened.size))  # decodes at a half, a quarter, ... where that is enough
            opened.load()
            return on_white(opened)
    except Image.DecompressionBombError as error:
        raise NotFetched(Reason.TOO_MANY_PIXELS, str(error)) from error
    except _DAMAGE as error:
        raise NotFetched(Reason.BROKEN, f"{kind} does not decode: {str(error) or type(error).__name__}") from error


def on_white(image: Image.Image) -> Image.Image:
    """An open file's picture as generation has every picture: RGB, upright, on white, of at most KEPT_PIXELS."""
    return _rgb(_upright(image))


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise NotFetched(Reason.TOO_MANY_PIXELS, f"{width}x{height} pixels, more than {max_pixels}")
    if min(size) < MIN_SIDE:
        raise NotFetched(Reason.TOO_SMALL, f"{width}x{height} pixels: a side is below {MIN_SIDE}")
    if max(size) > _LONGEST_STRIP * min(size):
        raise NotFetched(Reason.TOO_SMALL, f"{width}x{height} pixels: one side is {_LONGEST_STRIP} times the other")


def _fitting(size: tuple[int, int]) -> tuple[int, int]:
    width, height = size
    scale = min(1.0, (KEPT_PIXELS / (width * height)) ** 0.5)
    return max(1, int(width * scale)), max(1, int(height * scale))


def _upright(image: Image.Image) -> Image.Image:
    turned = upright(image)
    if turned is not image:
        image.close()  # the largest pictures are in memory once
    return turned


def _rgb(image: Image.Image) -> Image.Image:
    """RGB of the size that is kept. It shrinks before it composes: the largest pictures are copied once."""
    if image.mode.startswith("I"):  # 16 bits of grey, which convert() would clip
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    mode = "RGBA" if image.has_transparency_data else "RGB"
    layer = image if image.mode == mode else image.convert(mode)
    size = _fitting(layer.size)
    if size != layer.size:
        layer = layer.resize(size, Image.Resampling.LANCZOS)
    if mode == "RGB":
        return layer.copy()  # not the file's own image, which is closed
    ground = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(ground, layer).convert("RGB")
