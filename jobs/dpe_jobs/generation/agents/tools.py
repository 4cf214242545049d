"""What a selector can do: search, look, draw, edit. Every picture that a tool brings has a number, and keeps it.

Tools tell a model what went wrong in words (`ModelRetry`), so that it can do something else; nothing that a page, a
caption or a model says names a path, an address or a program here: models choose by number, and from lists.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, Protocol

from pydantic import Field
from pydantic_ai import BinaryContent, ToolReturn

from dpe_api.generation_spec import SourceKind
from dpe_jobs.endpoints.loop import ModelRetry
from dpe_jobs.endpoints.texts import marked, shorten
from dpe_jobs.generation.agents.seen import glance
from dpe_jobs.generation.agents.words import MOST_HITS
from dpe_jobs.generation.images import NoImage, Picture
from dpe_jobs.generation.roles import Rejected, Target

_LONGEST_RESULT = 200  # characters of a result in provenance
_LONGEST_WORDS = 300  # of a title or caption


# the schema bounds what a server that constrains calls would else let a weak model write without end
Number = Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": 99})]
Words = Annotated[str, Field(json_schema_extra={"maxLength": 120})]
Sentence = Annotated[str, Field(json_schema_extra={"maxLength": _LONGEST_WORDS})]


class Hit(Protocol):
    """A picture that a search found."""

    @property
    def words(self) -> str:
        """Title, licence, size: other people's words."""

    @property
    def load(self) -> "Load":
        """The way to the picture."""


class Finder(Protocol):
    """A source that is searched."""

    async def find(self, query: str, page: int) -> Sequence[Hit]:
        """A page of what it has, from 1, the best first. NoImage: the search failed."""


class Drawer(Protocol):
    """A source that draws."""

    def supplies(self, category: str) -> bool:
        """Whether it draws a category: it has knobs for no other one."""

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """What may be chosen, and its values."""

    async def select(self, target: Target) -> Picture:
        """Drawn by the target's knobs and seed."""


class Editor(Protocol):
    """A model that changes pictures as it is told."""

    async def edit(self, picture: Picture, instruction: str, *, seed: int = 0) -> Picture:
        """The changed picture. NoImage, Rejected: it could not, or would not."""


Load = Callable[[], Awaitable[Picture]]
"""The way to a picture, always the same one. NoImage: it cannot be had."""

Refuses = Callable[[Target, Picture], Awaitable[str | None]]
"""Why a picture may not be used for a target (its licence, say), or None."""


async def anything_goes(target: Target, picture: Picture) -> None:
    """Nothing is refused."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """There is no picture, says the model."""

    reason: str


@dataclass(slots=True)
class Hands:
    """The tools for one target, and what they have brought. Methods are tools: their docstrings are read by models."""

    target: Target
    searches: Finder | None = None
    pool: Finder | None = None
    drawer: Drawer | None = None
    editor: Editor | None = None
    refuses: Refuses = anything_goes
    calls: list[Mapping[str, Any]] = field(default_factory=list)
    outage: bool = False
    """A service gave no answer, and since then no picture was had."""
    _numbered: list[Load] = field(default_factory=list)
    """The ways to the pictures, not the pictures: many targets are looked for at once."""
    _seen: set[int] = field(default_factory=set)

    def tools(self) -> list[Callable[..., Any]]:
        """Those that there are for this target, but for the ends."""
        offered: list[tuple[object, Callable[..., Any]]] = [
            (self.searches, self.search_images),
            (self.pool, self.pool_search),
            (self.drawer, self.render),
            (self.editor, self.edit_image),
        ]
        return [*(tool for there, tool in offered if there is not None), self.look_at]

    def offer(self, schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The schema of a tool's arguments, with the numbers and knobs that there are now; None before there are any.

        Models that know nothing of tools take the first number that comes to mind: a server that constrains calls
        leaves them no wrong one.
        """
        given = dict(schema["properties"])
        if "number" in given:
            if not self._numbered:
                return None
            given["number"] = given["number"] | {"maximum": len(self._numbered)}
        if "knobs" in given and self.drawer is not None:
            options = self.drawer.knobs(self.target.category)
            named = {name: {"type": "string", "enum": list(values)} for name, values in options.items()}
            about = {"description": given["knobs"].get("description", "")}
            given["knobs"] = about | {"type": "object", "properties": named, "additionalProperties": False}
        return {**schema, "properties": given}

    async def search_images(self, query: Words, page: Number = 1) -> str:
        """Search the web for images. Returns numbered results with titles, licences and sizes.

        Args:
            query: a few plain words
            page: 1 for the best results, 2 for the next ones
        """
        return await self._search("search_images", self.searches, query, page)

    async def pool_search(self, query: Words, page: Number = 1) -> str:
        """Search the collection of images. Returns numbered results with captions.

        Args:
            query: a few plain words
            page: 1 for the best results, 2 for the next ones
        """
        return await self._search("pool_search", self.pool, query, page)

    async def render(self, knobs: dict[Words, Words]) -> ToolReturn:
        """Draw a picture. Shows it and gives it a number.

        Args:
            knobs: names and values of what it is to show; what is left out is as the target has it
        """
        assert self.drawer is not None
        options = self.drawer.knobs(self.target.category)
        for name, value in knobs.items():
            if value not in options.get(name, ()):
                listed = "; ".join(f"{n}: {', '.join(v)}" for n, v in options.items())
                raise ModelRetry(f"there is no knob {name!r} with the value {value!r}. Knobs: {listed}")
        chosen = {**self.target.knobs, **knobs}
        draw = partial(self.drawer.select, replace(self.target, knobs=chosen))
        picture = await self._had("render", {"knobs": knobs}, draw())
        return await self._shown(self._keep(draw, picture), picture)

    async def edit_image(self, number: Number, instruction: Sentence) -> ToolReturn:
        """Change a picture. Shows the changed one and gives it a number of its own.

        Args:
            number: of the picture to be changed
            instruction: what to change, in one sentence
        """
        assert self.editor is not None
        original = await self._picture(number)
        await self._check_usable(number, original)  # before it costs something
        edit, load = partial(self.editor.edit, seed=self.target.seed), self._numbered[number - 1]

        async def again() -> Picture:
            return await edit(await load(), instruction)  # what it cost is paid: the answer is in the store

        edited = await self._had(
            "edit_image",
            {"number": number, "instruction": shorten(instruction, _LONGEST_WORDS)},
            edit(original, instruction),
        )
        return await self._shown(self._keep(again, edited), edited)

    async def look_at(self, number: Number) -> ToolReturn:
        """Look at a picture.

        Args:
            number: of the picture
        """
        picture = await self._picture(number)
        self._did("look_at", {"number": number}, f"{picture.image.width} x {picture.image.height}")
        if number in self._seen:  # servers take only so many images of a conversation
            raise ModelRetry(f"picture {number} was shown before: look at another one, use one, or give up")
        return await self._shown(number, picture)

    async def use_image(self, number: Number) -> Any:
        """End with this picture.

        Args:
            number: of the picture
        """
        picture = await self._picture(number)
        if self.editor is not None and picture.origin.kind is not SourceKind.EDIT:
            raise ModelRetry("this target is an edited picture: use edit_image, then the number that it returns")
        await self._check_usable(number, picture)
        self._did("use_image", {"number": number}, picture.origin.id)
        return replace(picture, tool_calls=tuple(self.calls))

    async def _check_usable(self, number: int, picture: Picture) -> None:
        if trouble := await self.refuses(self.target, picture):
            self._did("refused", {"number": number}, trouble)
            raise ModelRetry(f"picture {number} cannot be used: {trouble}. Use another one")

    async def give_up(self, reason: Sentence) -> Any:
        """End without a picture.

        Args:
            reason: why there is none, in one sentence
        """
        return GivenUp(shorten(" ".join(reason.split()), _LONGEST_WORDS))

    async def _search(self, tool: str, finder: Finder | None, query: str, page: int) -> str:
        assert finder is not None
        asked = {"query": shorten(query, _LONGEST_WORDS), "page": page}
        if page < 1:
            raise ModelRetry("page counts from 1")
        hits = await self._had(tool, asked, finder.find(query, page))
        self._did(tool, asked, f"{len(hits)} images")
        if not hits:
            return "Nothing was found. Try other words."
        lines = []
        for hit in hits[:MOST_HITS]:
            self._numbered.append(hit.load)
            lines.append(f"{len(self._numbered)}. {shorten(' '.join(hit.words.split()), _LONGEST_WORDS)}")
        return marked(results="\n".join(lines))["results"]

    async def _had(self, tool: str, asked: Mapping[str, Any], coming: Awaitable[Any]) -> Any:
        """What a source brings; what it cannot bring is told to the model."""
        try:
            return await coming
        except (NoImage, Rejected) as error:
            self.outage = self.outage or (isinstance(error, NoImage) and error.outage)
            self._did(tool, asked, str(error))
            raise ModelRetry(f"{tool}: {marked(trouble=shorten(str(error), 500))['trouble']}") from error

    async def _picture(self, number: int) -> Picture:
        if not 1 <= number <= len(self._numbered):
            raise ModelRetry(f"there is no picture {number}: so far there are {len(self._numbered)}")
        found: Picture = await self._had("load", {"number": number}, self._numbered[number - 1]())
        self.outage = False
        return found

    def _keep(self, load: Load, picture: Picture) -> int:
        self.outage = False
        self._numbered.append(load)
        tool = "edit_image" if picture.origin.kind is SourceKind.EDIT else "render"
        self._did(tool, {}, f"picture {len(self._numbered)}: {picture.origin.id}")
        return len(self._numbered)

    def _did(self, tool: str, arguments: Mapping[str, Any], result: str) -> None:
        self.calls.append({"tool": tool, "arguments": dict(arguments), "result": shorten(result, _LONGEST_RESULT)})

    async def _shown(self, number: int, picture: Picture) -> ToolReturn:
        self._seen.add(number)
        image = await asyncio.to_thread(glance, picture.image)
        size = f"{picture.image.width} x {picture.image.height} pixels"
        return ToolReturn(f"Picture {number}, {size}.", content=[BinaryContent(image, media_type="image/jpeg")])
