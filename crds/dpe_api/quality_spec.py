"""`spec.generation.quality`: what a sample must be beside being right and neither too easy nor too hard."""

from typing import Annotated

from pydantic import Field

from dpe_api.base import ApiModel
from dpe_api.fields import Name

Language = Annotated[str, Field(min_length=2, max_length=3, pattern=r"^[a-z]{2,3}$")]
Licence = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9.+-]+$")]


class Safety(ApiModel):
    """A model says of each sample that has passed everything else whether it holds what must not be trained on:
    nudity, people who can be recognised, violence. What it refuses is rejected as Unsafe; no answer is an error.
    """

    endpoint: Name
    """Name of an entry of spec.endpoints that takes images."""
    drawings: bool = False
    """Whether it is asked about pictures that programs drew, and about their edits by programs, too."""


class Quality(ApiModel):
    """Checks of every sample. The reasons of rejections are in status and in rejected.parquet."""

    languages: Annotated[list[Language], Field(min_length=1, max_length=16)] | None = None
    """Languages of questions, as ISO 639-1 codes; left out: any. Short questions are judged by their script only."""
    licences: Annotated[list[Licence], Field(min_length=1, max_length=64)] | None = None
    """Licences of pictures, as SPDX identifiers (CC0-1.0, CC-BY-4.0, MIT); left out: any, and unknown ones.
    `LicenseRef-unknown` in the list allows pictures of which no licence is known."""
    min_side: Annotated[int, Field(ge=1, le=4096)] = 8
    """Shortest side of a picture, in pixels."""
    max_pixels: Annotated[int, Field(ge=1024, le=67_108_864)] = 16_777_216
    """Largest picture, in pixels."""
    safety: Safety | None = None
    """Who says whether a sample may be trained on at all; left out: nobody is asked."""
