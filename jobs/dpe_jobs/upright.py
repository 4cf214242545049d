"""Pictures turned as their EXIF says, whatever else is in it."""

import logging

from PIL import ExifTags, Image

log = logging.getLogger(__name__)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation."""


def upright(image: Image.Image) -> Image.Image:
    """The picture as it is to be seen, itself where it need not be turned.

    Pillow's exif_transpose writes the other tags anew, which cameras botch.
    """
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as error:  # noqa: BLE001 - whatever a reader of tags raises, it says nothing about the picture
        log.debug("EXIF that cannot be read is passed over: %r", error)
        turn = None
    return image if turn is None else image.transpose(turn)
