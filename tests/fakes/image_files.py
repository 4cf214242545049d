"""Image files as the web has them, good ones and bad ones."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def photo(width: int = 120, height: int = 80, seed: int = 0) -> Image.Image:
    """Smooth colours with some noise: red at the upper left, blue at the lower right."""
    rng = np.random.default_rng(seed)
    down, right = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    red, blue = 255 * (1 - (down + right) / 2), 255 * (down + right) / 2
    pixels = np.stack([red, 60 * np.ones_like(red), blue], axis=2) + rng.normal(0, 3, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def file(image: Image.Image | None = None, kind: str = "JPEG", **options: object) -> bytes:
    """An encoded image."""
    buffer = io.BytesIO()
    (image or photo()).save(buffer, kind, **options)
    return buffer.getvalue()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_bomb(side: int) -> bytes:
    """A grey PNG of side x side pixels in about a thousandth of the bytes."""
    packer = zlib.compressobj(9)
    row = b"\0" + bytes(side)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def png_text_bomb() -> bytes:
    """A small PNG with a compressed comment of 10 MB."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1_000_000)) for _ in range(10)) + packer.flush()
    good = file(kind="PNG")
    end = good.index(b"IDAT") - 4
    return good[:end] + _chunk(b"zTXt", b"Comment\0\0" + packed) + good[end:]
