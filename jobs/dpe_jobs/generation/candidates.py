"""From a target to a candidate: select a picture, write question and answer, validate both; and what became of it."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from dpe_api.artifacts import AnswerType
from dpe_jobs import asking
from dpe_jobs.generation.dedup import Thumbnail, pixel_digest, thumbnail
from dpe_jobs.generation.images import NoImage, Origin, Picture
from dpe_jobs.generation.quality.inspector import Inspector
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.roles import (
    SOURCE_FAILED,
    Planner,
    Rejected,
    Rejection,
    Safety,
    Selector,
    Target,
    Validator,
    Writer,
)
from dpe_jobs.generation.workbench import Workbench

NO_IMAGE = "NoImage"
UNWRITTEN = Written("", "", AnswerType.EXACT)
"""Of a candidate whose picture is refused: nobody was asked for a question."""


@dataclass(frozen=True, slots=True)
class Team:
    """The agents of one run."""

    planner: Planner
    selector: Selector
    writer: Writer
    validator: Validator
    workbench: Workbench
    inspector: Inspector
    max_pixels: int
    """A larger picture is scaled down, as it is for the diagnosis: so it is asked about, stored and trained on."""
    safety: Safety | None = None
    """Asked last, about what has passed; None: nobody is."""
    ahead: int = 32
    """Candidates that are made while others are being solved."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sample that nobody has tried to solve yet."""

    id: str
    """Names category and number, and hashes the content: other content is another candidate."""
    target: Target
    image: bytes
    """PNG, no larger than a model is sent it."""
    size: tuple[int, int]
    """Its width and height."""
    origin: Origin
    digest: str
    thumbnail: Thumbnail
    written: Written
    facets: Mapping[str, str]
    """The target's knobs, and what is known to be in the picture, which counts where a plan says something else."""
    tool_calls: tuple[Mapping[str, Any], ...]
    rejection: Rejection | None
    """The picture's, or the validator's."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a target. It holds no picture."""

    target: Target
    id: str
    candidate: Candidate | None = None
    """What was made, without its picture; None: nothing came of the target."""
    rejection: Rejection | None = None
    """Why it is rejected; None when it passed."""
    pass_rate: float | None = None
    rollouts: tuple[str, ...] = ()
    given_up: bool = False
    """Not even begun: others had filled the quota."""
    unfit: Rejection | None = None
    """Why GRPO cannot learn from it (too hard, too easy), in a category of the warm-up: that can."""
    sound: bool = False
    """Whether the candidate passed all that is looked at before anybody solves it: then it may repeat another one."""
    warmup: bool = False
    """Decided: it is kept for the warm-up, and not for GRPO."""


def name(target: Target, prefix: str) -> str:
    """Names a target within all rounds and shards."""
    return f"{prefix}-{target.category}-{target.number:06d}"


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _inspected(picture: Picture, team: Team) -> tuple[Picture, Rejection | None]:
    """A picture as it is asked about, and what is against it whatever is asked."""
    rejection = team.inspector.picture(picture)
    if picture.scene is not None:
        return picture, rejection  # a display list has places in the picture as it was drawn: it is compared first
    return replace(picture, image=asking.shrunk(picture.image, team.max_pixels)), rejection


def _candidate(
    name: str, target: Target, picture: Picture, written: Written, rejection: Rejection | None, max_pixels: int
) -> Candidate:
    image = asking.shrunk(picture.image, max_pixels)
    digest = pixel_digest(image)
    content = hashlib.sha256(
        "\x1f".join([digest, written.question, written.answer, *written.choices]).encode()
    ).hexdigest()
    return Candidate(
        id=f"{name}-{content[:8]}",
        target=target,
        image=_png(image),
        size=image.size,
        origin=picture.origin,
        digest=digest,
        thumbnail=thumbnail(image),
        written=written,
        facets={**target.knobs, **picture.facts},
        tool_calls=picture.tool_calls,
        rejection=rejection,
    )


async def make(team: Team, target: Target, prefix: str) -> Candidate | Rejection:
    """The candidate of a target, the same one whenever it is made; or why nothing could be made. RequestFailed."""
    try:
        found = await team.selector.select(target)
        picture, rejection = await team.workbench.do(_inspected, found, team)
        del found  # the full size, which may be large
        # nobody is paid for a question about a picture that cannot be used
        written = UNWRITTEN if rejection is not None else await team.writer.write(target, picture)
    except NoImage as error:
        return Rejection(SOURCE_FAILED if error.outage else NO_IMAGE, str(error))
    except Rejected as error:
        return error.rejection
    if rejection is None:
        rejection = await team.validator.validate(target, picture, written)
    named = name(target, prefix)
    return await team.workbench.do(_candidate, named, target, picture, written, rejection, team.max_pixels)
