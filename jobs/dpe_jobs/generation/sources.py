"""Where pictures come from, as planner and selector see it: one `Supply` for each entry of spec.generation.sources."""

import random
from collections.abc import Mapping, Sequence
from typing import Protocol

from dpe_api.generation_spec import SourceKind
from dpe_jobs.generation.edit import Edit, make
from dpe_jobs.generation.images import NoImage, Origin, Picture
from dpe_jobs.generation.quality.inspector import Refuses
from dpe_jobs.generation.render import Generator, LimitedProgram, Program
from dpe_jobs.generation.roles import Rejected, Target
from dpe_jobs.generation.workbench import Workbench
from dpe_jobs.seeds import derive

_TRIES = 4  # originals that an edit is tried on


class Supply(Protocol):
    """One source of pictures."""

    name: str
    """As `Origin.source` has it: `render:shapes`."""
    kind: SourceKind
    share: float
    """Of a category's targets, relative to the other sources of the category."""

    @property
    def program(self) -> Program | None:
        """Who asks about its pictures and reads them again; None: only endpoints can."""

    def supplies(self, category: str) -> bool:
        """Whether it has pictures for a category."""

    def limit(self, category: str) -> int | None:
        """Most different samples of a category that it can bring; None: no limit is known."""

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """What a planner may choose, and its values. Any values go together."""

    def looks_for(self, category: str, knobs: Mapping[str, str]) -> tuple[str, ...]:
        """What each picture is that these knobs need: those that are the same are numbered (`Target.ordinals`).

        Of a source without a program a target's query counts instead, if it has one.
        """

    async def select(self, target: Target) -> Picture:
        """The picture for a target: the same one whenever and however often it is asked for.

        NoImage: there is none. Rejected: there is one that may not be used.
        """


class RenderSupply:
    """Pictures drawn by a program."""

    kind = SourceKind.RENDER
    endless = True

    def __init__(self, generator: Generator, share: float, workbench: Workbench) -> None:
        self.name, self.share, self.generator = f"render:{generator.name}", share, generator
        self.program: Program = generator  # type: ignore[assignment]  # load_programs let nothing else in
        self._workbench = workbench

    def supplies(self, category: str) -> bool:
        """Whether the program draws this category."""
        return category in self.generator.categories()

    def limit(self, category: str) -> int | None:
        """As the program says."""
        return self.generator.supply(category) if isinstance(self.generator, LimitedProgram) else None

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """As the program says."""
        return self.generator.knobs(category)

    def looks_for(self, category: str, knobs: Mapping[str, str]) -> tuple[str, ...]:
        """Nothing: it is drawn."""
        return ("",)

    def draw(self, category: str, knobs: Mapping[str, str], seed: int) -> Picture:
        """A picture and what is in it."""
        drawn = self.generator.draw(knobs, random.Random(seed))
        said = {"tool": self.name, "arguments": {"category": category, **knobs}, "result": f"seed {seed}"}
        origin = Origin(SourceKind.RENDER, self.name, f"{category}-{seed}", self.generator.licence)
        return Picture(drawn.image, origin, drawn.facts, (said,), drawn.scene, drawn.written)

    async def select(self, target: Target) -> Picture:
        """Drawn by the target's knobs and seed alone."""
        seed = derive(target.seed, "picture")
        return await self._workbench.do(self.draw, target.category, target.knobs, seed)

    async def original(self, category: str, facts: Mapping[str, str], seed: int, ordinal: int, who: str) -> Picture:
        """Drawn with these facts; the other knobs as the seed says."""
        rng = random.Random(seed)
        options = self._options(category, facts)
        if options is None:
            raise NoImage(f"{self.name} draws nothing with {dict(facts)}")
        knobs = {name: facts.get(name) or rng.choice(values) for name, values in options[1].items()}
        return await self._workbench.do(self.draw, options[0], knobs, seed)

    def need(self, category: str, weight: float, who: str = "") -> None:
        """It draws as much as anybody asks for."""

    def _options(self, category: str, facts: Mapping[str, str]) -> tuple[str, Mapping[str, tuple[str, ...]]] | None:
        """A category whose knobs have these values, the given one if it can be, and its knobs."""
        own = self.generator.categories()
        for name in sorted(own, key=lambda name: name != category):
            knobs = self.generator.knobs(name)
            if all(value in knobs.get(key, ()) for key, value in facts.items()):
                return name, knobs
        return None


class Originals(Protocol):
    """A source whose pictures may be edited."""

    name: str
    share: float
    endless: bool
    """Whoever asks uses up nothing."""

    async def original(self, category: str, facts: Mapping[str, str], seed: int, ordinal: int, who: str) -> Picture:
        """A picture with these facts, for a sample of this category that `who` makes. NoImage: there is none.

        Those who ask with the same name, category and facts have different ordinals, and get different pictures.
        """

    def need(self, category: str, weight: float, who: str) -> None:
        """`who` will ask for about so much. Before anybody does."""


class EditSupply:
    """Pictures of another source, changed by a program."""

    kind = SourceKind.EDIT

    def __init__(
        self, edit: Edit, originals: Sequence[Originals], share: float, workbench: Workbench, refuses: Refuses
    ) -> None:
        """`refuses` says which originals may not be edited."""
        self.name, self.share, self.program = f"edit:{edit.name}", share, edit
        self._edit, self._originals, self._workbench, self._refuses = edit, originals, workbench, refuses

    def supplies(self, category: str) -> bool:
        """Whether the program has this category."""
        return category in self._edit.categories()

    def limit(self, category: str) -> int | None:
        """None is known."""
        return None

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """As the program says."""
        return self._edit.knobs(category)

    def need(self, category: str, weight: float) -> None:
        """Tell those that its originals come from how much it will ask for."""
        whole = sum(source.share for source in self._originals)
        for source in self._originals:
            source.need(category, weight * source.share / whole, self.name)

    def looks_for(self, category: str, knobs: Mapping[str, str]) -> tuple[str, ...]:
        """The facts of its originals."""
        return tuple(repr(sorted(facts.items())) for facts in self._edit.originals(category, knobs))

    async def select(self, target: Target) -> Picture:
        """The edited picture. An original that does not suit is replaced by another one, some times.

        Rejected: so it was with an original that may not be edited.
        """
        refused: NoImage | Rejected = NoImage("there is nothing to edit")
        for number in range(_TRIES if any(source.endless for source in self._originals) else 1):
            try:
                pictures = await self._pictures(target, number)
                rng = random.Random(derive(target.seed, "edit", number))
                return await self._workbench.do(make, self._edit, target.category, pictures, target.knobs, rng)
            except (NoImage, Rejected) as error:
                refused = error
        raise refused

    async def _pictures(self, target: Target, number: int) -> list[Picture]:
        """Its originals, each from a source drawn by share; `number` counts the tries, later ones use up nothing."""
        found = []
        wanted = self._edit.originals(target.category, target.knobs)
        sources = [source for source in self._originals if source.endless or not number]
        for place, (facts, ordinal) in enumerate(zip(wanted, target.ordinals, strict=True)):
            seed = derive(target.seed, "original", number, place)
            (source,) = random.Random(seed).choices(sources, [s.share for s in sources])
            picture = await source.original(target.category, facts, seed, ordinal, self.name)
            rejection = await self._workbench.do(self._refuses, picture)
            if rejection is not None:
                raise Rejected(rejection.reason, f"an original: {rejection.detail}")
            found.append(picture)
        return found


class BySource:
    """Asks the source that the planner chose; implements `roles.Selector`."""

    def __init__(self, supplies: Sequence[Supply]) -> None:
        self._supplies = {supply.name: supply for supply in supplies}

    async def select(self, target: Target) -> Picture:
        """The picture for a target."""
        if target.source not in self._supplies:
            raise NoImage(f"there is no source {target.source!r}; sources are {', '.join(self._supplies)}")
        return await self._supplies[target.source].select(target)


def limits(supplies: Sequence[Supply], categories: Sequence[str]) -> dict[str, int | None]:
    """Most samples of each category that all sources together can bring. None: no limit; 0: no source has it."""
    found: dict[str, int | None] = {}
    for category in categories:
        each = [s.limit(category) for s in supplies if s.supplies(category)]
        found[category] = None if None in each else sum(limit for limit in each if limit is not None)
    return found
