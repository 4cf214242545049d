"""From a target to a candidate: select and draw a picture, write question and answer, validate both."""

import hashlib
import io
import random
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from dpe_jobs.generation import validator, writer
from dpe_jobs.generation.dedup import Thumbnail, pixel_digest, thumbnail
from dpe_jobs.generation.planner import Target
from dpe_jobs.generation.render import Generator, Written


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sample that nobody has tried to solve yet."""

    id: str
    """Names category and number, and hashes the content: other content is another candidate."""
    target: Target
    program: str
    licence: str
    image: bytes
    """PNG."""
    digest: str
    picture: Thumbnail
    written: Written
    facets: Mapping[str, str]
    """The target's knobs, and what the program says of the picture."""
    trouble: tuple[str, str] | None
    """Reason and detail of the validator's rejection."""


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def make(program: Generator, target: Target, round_number: int) -> Candidate:
    """The candidate of a target: the same one whenever and however often it is made."""
    rng = random.Random(target.seed)
    drawn = program.draw(target.knobs, rng)
    written = writer.ask(program, target.category, target.knobs, drawn, rng)
    digest = pixel_digest(drawn.image)
    content = hashlib.sha256(
        "\x1f".join([digest, written.question, written.answer, *written.choices]).encode()
    ).hexdigest()
    return Candidate(
        id=f"r{round_number}-{target.category}-{target.number:06d}-{content[:8]}",
        target=target,
        program=program.name,
        licence=program.licence,
        image=_png(drawn.image),
        digest=digest,
        picture=thumbnail(drawn.image),
        written=written,
        facets={**drawn.facts, **target.knobs},
        trouble=validator.trouble(program, drawn, target.knobs, written),
    )
