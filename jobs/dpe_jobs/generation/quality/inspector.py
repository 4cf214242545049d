"""The checks of a candidate that need nobody's opinion: of its picture before anybody is paid to ask about it, then of
what was asked.
"""

from collections.abc import Callable
from typing import Protocol

from dpe_api.quality_spec import Quality
from dpe_jobs import asking
from dpe_jobs.generation.images import Picture
from dpe_jobs.generation.quality import licences, pictures, wording
from dpe_jobs.generation.quality.pictures import Processor
from dpe_jobs.generation.quality.reserved import Reserved
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.roles import Rejection

Refuses = Callable[[Picture], Rejection | None]
"""Why a picture may not be used, or None."""


class Made(Protocol):
    """What is looked at of a candidate."""

    @property
    def image(self) -> bytes:
        """An image file."""

    @property
    def size(self) -> tuple[int, int]:
        """Its width and height."""

    @property
    def written(self) -> Written:
        """Question and answer."""


class Inspector:
    """The checks of one run, and what is reserved."""

    def __init__(
        self,
        quality: Quality,
        reserved: Reserved,
        processor: Processor | None = None,
        *,
        answer_tokens: int,
        max_pixels: int,
    ) -> None:
        """BadConfig for a language or a licence of `spec.generation.quality` that nobody knows.

        `processor` is None for a model whose image tokens cannot be computed here; `answer_tokens` is the longest
        answer; a picture of more than `max_pixels` is scaled down before anybody is asked.
        """
        self._quality, self._reserved, self._processor = quality, reserved, processor
        self._answer_tokens, self._max_pixels = answer_tokens, max_pixels
        self._licences = None if quality.licences is None else licences.allow_list(quality.licences)
        self._languages = None if quality.languages is None else frozenset(quality.languages)
        if self._languages is not None:
            wording.check_languages(self._languages)

    def original(self, picture: Picture) -> Rejection | None:
        """The first reason against a picture of which another one is to be made, as it came from its source."""
        rejection = None if self._licences is None else licences.licence(picture.origin, self._licences)
        return rejection or self._reserved.picture(picture.image)

    def picture(self, picture: Picture) -> Rejection | None:
        """The first reason against a picture, as it came from its source, whatever will be asked about it."""
        quality, size = self._quality, picture.image.size
        asked = asking.fitting(*size, self._max_pixels)
        rejection = pictures.usable(*size, quality.min_side, quality.max_pixels)
        if rejection is None and (small := pictures.usable(*asked, quality.min_side, quality.max_pixels)):
            detail = f"{size[0]}x{size[1]} pixels, scaled down to diagnosis.maxPixels: {small.detail}"
            rejection = Rejection(small.reason, detail)
        if rejection is None and self._processor is not None:
            rejection = self._processor.fits(asked, "", self._answer_tokens)
        return rejection or self.original(picture)

    def look(self, made: Made) -> Rejection | None:
        """The first reason against a candidate whose picture has passed, in the order of their price."""
        written, quality = made.written, self._quality
        rejection = wording.readable(written.question, written.choices) or wording.fitting(
            written.answer, written.answer_type, written.choices
        )
        if rejection is None and self._languages is not None:
            rejection = wording.language(written.question, self._languages)
        rejection = rejection or pictures.decodes(made.image, quality.min_side, quality.max_pixels)
        if rejection is None and self._processor is not None:
            asked = asking.prompt(written.question, written.choices, written.answer_type)
            rejection = self._processor.fits(made.size, asked, self._answer_tokens)
        return rejection or self._reserved.question(written.question)
