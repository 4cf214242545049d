"""The image of a row: bytes, base64, or a path in the image folder."""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from dpe_jobs.importing.answers import read_list
from dpe_jobs.importing.files import MAX_IMAGE_BYTES, Files
from dpe_jobs.importing.tsv import is_reference
from dpe_jobs.questions import check_image

_LONGEST_PATH = 4096  # characters


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"no base64: {error}") from error


class Images:
    """Loads and checks what an image cell holds."""

    def __init__(self, folder: Files, reference: Callable[[str], str] | None = None) -> None:
        """`folder` is where paths lead from. `reference`, of a TSV: the image cell of the row with an index.

        In a TSV a text is base64 unless it has a dot, which base64 has not. Elsewhere it is a path unless it is longer
        than paths are.
        """
        self._folder, self._reference = folder, reference

    def load(self, value: Any) -> bytes:
        """An image file that decodes. ValueError says why there is none."""
        data = self._bytes(value)
        if len(data) > MAX_IMAGE_BYTES:
            raise ValueError(f"larger than {MAX_IMAGE_BYTES >> 20} MiB")
        check_image(data)
        return data

    def _bytes(self, value: Any) -> bytes:
        if isinstance(value, str) and value.startswith("[") and self._reference is not None:
            value = read_list(value)
        if isinstance(value, list):
            if len(value) != 1:
                raise ValueError(f"{len(value)} images: a question has one")
            return self._bytes(value[0])
        if isinstance(value, Mapping):
            return self._bytes(value.get("bytes") or value.get("path"))
        if isinstance(value, bytes) and value:
            return value
        if isinstance(value, str) and value.strip():
            return self._text(value)
        raise ValueError("empty" if not value else f"a {type(value).__name__}, not an image")

    def _text(self, value: str) -> bytes:
        if value.startswith("data:image/"):
            kind, _, payload = value.partition(",")
            if not kind.endswith(";base64"):
                raise ValueError("a data: address that is not base64")
            return _decode(payload)
        if "://" in value[:16]:
            raise ValueError(f"{value[:100]!r} is an address: download the images first")
        if self._reference is None:
            return self._folder.read_image(value) if len(value) <= _LONGEST_PATH else _decode(value)
        if "." in value[:_LONGEST_PATH]:
            return self._folder.read_image(value)
        return _decode(self._reference(value) if is_reference(value) else value)
