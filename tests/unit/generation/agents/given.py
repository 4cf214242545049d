"""Targets, pictures, sources and a model that plays all roles, for tests of agents."""

import io
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from tests.fakes.endpoints import endpoint
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import Asked, FakeModel, Reply, calling

from dpe_api.artifacts import AnswerType
from dpe_api.endpoints import Endpoint
from dpe_api.generation_spec import SourceKind
from dpe_jobs.client import ModelClient
from dpe_jobs.generation.agents.clients import open_clients
from dpe_jobs.generation.agents.examples import Example, Examples
from dpe_jobs.generation.images import NoImage, Origin, Picture
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.roles import Aim, Rejected, Target
from dpe_jobs.generation.search.supply import Found
from dpe_jobs.ledger import Ledger
from dpe_jobs.prompts import prompt

LEDGER = "s3://b/ledger"
PHOTO = "search:wikimedia"
AIM = Aim("miscounts birds that overlap", {}, ("p-1",))
WRITTEN = Written("How many birds sit on the wire?", "3", AnswerType.NUMBER)
EXAMPLES = Examples({"birds": [Example("p-1", "How many birds?", "4", "5", b"\xff\xd8\xff small")]})


def target(number: int = 0, **changes: Any) -> Target:
    fields: dict[str, Any] = {
        "category": "birds",
        "number": number,
        "kind": SourceKind.SEARCH,
        "source": PHOTO,
        "knobs": {"light": "dusk"},
        "aim": AIM,
        "seed": 1000 + number,
        "query": "birds on a wire",
        **changes,
    }
    return Target(**fields)


def picture(colour: str = "red", kind: SourceKind = SourceKind.SEARCH, **origin: Any) -> Picture:
    return Picture(
        Image.new("RGB", (64, 48), colour),
        Origin(kind, f"{kind}:x", origin.pop("id", colour), "CC0-1.0", **origin),
    )


def colour_of(image: bytes) -> tuple[int, ...]:
    """Of an image that was sent, roughly: to tell which one it was."""
    with Image.open(io.BytesIO(image)) as opened:
        pixel = opened.convert("RGB").getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return tuple(round(value / 255) * 255 for value in pixel)


@asynccontextmanager
async def client_of(model: FakeModel, store: MemoryStore | None = None, **changes: Any) -> AsyncIterator[ModelClient]:
    """A client as generation opens it, with a ledger."""
    chosen = endpoint(model, **changes)
    with Ledger(store or MemoryStore(), LEDGER) as ledger:
        async with open_clients([chosen], ledger) as clients:
            yield clients[chosen.name]


def of(model: FakeModel, **changes: Any) -> Endpoint:
    return endpoint(model, **changes)


def role(asked: Asked) -> str:
    """Which agent asks: told by the instructions, which nothing else can write."""
    names = ("plan", "select", "observe", "write", "answer", "verify", "safety")
    return next(name for name in names if asked.system == prompt(name).system)


SEEN = {"observation": "Three birds on a wire."}
QUESTION: dict[str, Any] = {
    "possible": True,
    "why_not": "",
    "rationale": "There is one left, one in the middle and one right.",
    "question": WRITTEN.question,
    "answer_type": "number",
    "choices": [],
    "answer": "3",
}
ANSWER = {"thoughts": "one, two, three", "answerable": True, "answer": "3"}
GOOD = {"reason": "All is well.", "answerable": True, "single": True, "on_target": True, "well_formed": True}
SAFE = {"reason": "Birds on a wire.", "kinds": [], "safe": True}


@dataclass
class Cast:
    """A script that answers each role as told: an object, a text, a reply, or what a function makes of the question."""

    plan: Any = field(default_factory=lambda: {"targets": []})
    select: Any = field(default_factory=lambda: calling(("give_up", {"reason": "no"})))
    observe: Any = field(default_factory=lambda: SEEN)
    write: Any = field(default_factory=lambda: QUESTION)
    answer: Any = field(default_factory=lambda: ANSWER)
    verify: Any = field(default_factory=lambda: GOOD)
    safety: Any = field(default_factory=lambda: SAFE)

    def __call__(self, asked: Asked) -> list[str] | Reply:
        said = getattr(self, role(asked))
        if callable(said):
            said = said(asked)
        if isinstance(said, Reply):
            return said
        return [said if isinstance(said, str) else json.dumps(said)]


class Gallery:
    """A search that finds what it was given: words and pictures, or why there is none."""

    def __init__(self, pages: Sequence[Sequence[tuple[str, Picture | str]]]) -> None:
        self.pages, self.asked = pages, []  # type: ignore[var-annotated]

    def of(self, wanted: Target) -> "Gallery":
        return self

    async def find(self, query: str, page: int) -> Sequence[Found]:
        self.asked.append((query, page))
        if query == "broken":
            raise NoImage("search:wikimedia: HTTP 503", outage=True)
        if page > len(self.pages):
            return ()
        return [Found(words, self._loads(what)) for words, what in self.pages[page - 1]]

    @staticmethod
    def _loads(what: Picture | str) -> Callable[[], Any]:
        async def load() -> Picture:
            if isinstance(what, str):
                raise NoImage(what)
            return what

        return load


class Pencil:
    """Draws birds in a colour."""

    def supplies(self, category: str) -> bool:
        return category == "birds"

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        return {"birds": {"colour": ("red", "lime")}}[category]

    async def select(self, wanted: Target) -> Picture:
        return picture(wanted.knobs["colour"], SourceKind.RENDER)


class Program:
    """Selects without a model."""

    async def select(self, wanted: Target) -> Picture:
        return picture(id="by program")


class Brush:
    """Paints over."""

    async def edit(self, original: Picture, instruction: str, *, seed: int = 0) -> Picture:
        if "crowd" in instruction:
            raise Rejected("EditModerated", "the editor makes no pictures of people")
        return Picture(
            Image.new("RGB", original.image.size, "blue"),
            Origin(SourceKind.EDIT, "edit:editor", f"e{seed}", original.origin.licence, parents=(original.origin,)),
        )
