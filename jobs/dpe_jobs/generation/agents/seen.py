"""Pictures as agents are sent them."""

import io

from PIL import Image

from dpe_jobs import asking

MOST_PIXELS = 1_003_520  # as a diagnosis asks, by default: 1280 patches of 28 by 28 pixels
GLANCE_PIXELS = 512 * 512  # where several are looked at


def encoded(image: Image.Image, most_pixels: int = MOST_PIXELS) -> bytes:
    """A PNG file of at most so many pixels."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return asking.fit(buffer.getvalue(), most_pixels)


def glance(image: Image.Image) -> bytes:
    """A small JPEG file."""
    small = image.convert("RGB")
    scale = (GLANCE_PIXELS / (small.width * small.height)) ** 0.5
    if scale < 1.0:
        small = small.resize((max(1, int(small.width * scale)), max(1, int(small.height * scale))))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
