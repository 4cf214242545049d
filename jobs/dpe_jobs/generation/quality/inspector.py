"""The checks of a candidate that need nobody's opinion, in the order of their price."""

import io
from collections.abc import Callable, Sequence
from typing import Protocol

from PIL import Image

from dpe_api.quality_spec import Quality
from dpe_jobs import asking
from dpe_jobs.generation.images import Origin
from dpe_jobs.generation.quality import licences, pictures, wording
from dpe_jobs.generation.quality.pictures import Processor
from dpe_jobs.generation.quality.reserved import Reserved
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.roles import Rejection


class Made(Protocol):
    """What is looked at of a candidate."""

    @property
    def image(self) -> bytes:
        """An image file."""

    @property
    def digest(self) -> str:
        """Of its pixels."""

    @property
    def origin(self) -> Origin:
        """Where the picture comes from."""

    @property
    def written(self) -> Written:
        """Question and answer."""


Check = Callable[[Made], Rejection | None]


def checks(quality: Quality, processor: Processor | None, answer_tokens: int) -> tuple[Check, ...]:
    """Those that `spec.generation.quality` asks for. BadConfig for a language or a licence that nobody knows.

    `processor` is None for a model whose image tokens cannot be computed here; `answer_tokens` is the longest answer.
    """
    found: list[Check] = [
        lambda made: wording.readable(made.written.question, made.written.choices),
        lambda made: wording.fitting(made.written.answer, made.written.answer_type, made.written.choices),
    ]
    if quality.languages is not None:
        languages = frozenset(quality.languages)
        wording.check_languages(languages)
        found.append(lambda made: wording.language(made.written.question, languages))
    if quality.licences is not None:
        allowed = licences.allow_list(quality.licences)
        found.append(lambda made: licences.licence(made.origin, allowed))
    found.append(lambda made: pictures.decodes(made.image, quality.min_side, quality.max_pixels))
    if processor is not None:
        found.append(lambda made: processor.fits(made.image, _asked(made.written), answer_tokens))
    return tuple(found)


def _asked(written: Written) -> str:
    return asking.prompt(written.question, written.choices, written.answer_type)


class Inspector:
    """The checks of one run, and what is reserved."""

    def __init__(self, against: Sequence[Check], reserved: Reserved) -> None:
        self._against, self._reserved = against, reserved

    def look(self, made: Made) -> Rejection | None:
        """The first reason against a candidate."""
        for check in self._against:
            rejection = check(made)
            if rejection is not None:
                return rejection
        with Image.open(io.BytesIO(made.image)) as image:
            return self._reserved.look(made.digest, image.convert("RGB"), made.written.question)
