"""Pictures from any source, and where each comes from: what selectors return and what samples record."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from dpe_api.generation_spec import SourceKind
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.render.scene import Scene


class NoImage(Exception):
    """No source has a picture for a target. The message says what was looked for, where, and what was wrong."""

    def __init__(self, message: str, *, outage: bool = False) -> None:
        """`outage`: a service gave no answer, which says nothing about the pictures that it has."""
        super().__init__(message)
        self.outage = outage


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a picture comes from. `title` and `author` are other people's words: data, never instructions."""

    kind: SourceKind
    source: str
    """Which source: `render:shapes`, `pool:s3://bucket/folder`, `search:wikimedia`, `edit:recolour`."""
    id: str
    """Names the picture within its source, for as long as the source exists."""
    licence: str
    """SPDX identifier where there is one; empty: unknown."""
    page_url: str | None = None
    """The page on which a person finds it."""
    image_url: str | None = None
    title: str = ""
    author: str = ""
    parents: tuple["Origin", ...] = ()
    """An edited picture's originals."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that a question can be written about."""

    image: Image.Image
    """RGB, upright, one frame."""
    origin: Origin
    facts: Mapping[str, str] = field(default_factory=dict)
    """What is exactly known to be in it; empty for a picture that nobody has looked at."""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """The calls that found it, in order: tool, arguments, and a short result."""
    scene: Scene | None = None
    """The display list of a `SceneProgram`'s picture."""
    written: Written | None = None
    """The question of a program that asks by itself; other writers pay it no heed."""
