"""Programs that draw images whose contents they know exactly: the entry point group `dpe.generators`.

A package adds one by an entry point that names a class without arguments, in the form of `PixelProgram` or
`SceneProgram`. A resource names it in `spec.generation.sources`.

The two differ in who writes the question and in what the second look reads. A `PixelProgram` says how facts are asked
about, the writer asks, and the answer is read anew from the pixels. A `SceneProgram` writes its own question and hands
out a display list beside the picture: marks with outlines, colours and texts, as an SVG file has them, and no data.
The answer is worked out anew from that list by a reader that shares no code with the drawing.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Literal, Protocol, runtime_checkable

from PIL import Image

from dpe_api.artifacts import AnswerType
from dpe_api.generation_spec import Source, SourceKind
from dpe_jobs.generation.render.scene import Scene
from dpe_jobs.runtime import BadConfig

GROUP = "dpe.generators"
TRUTH = "truth"
"""The knob that says whether what a question on existence names is in the picture: yes or no."""


@dataclass(frozen=True, slots=True)
class Form:
    """A way to ask about one fact of a picture.

    `value`: the answer is the fact itself; `text` may name other facts as {fact}. `exists` and `absent`: `text` names
    a value of the fact as {named} and asks whether it is, or is not, in the picture.
    """

    text: str
    asks: str
    kind: Literal["value", "exists", "absent"] = "value"


@dataclass(frozen=True, slots=True)
class Written:
    """A question and the answer that its writer proposes."""

    question: str
    answer: str
    answer_type: AnswerType
    choices: tuple[str, ...] = ()
    """The options of a multiple-choice question."""
    observation: str = ""
    """What the writer saw before it asked; empty where nobody had to look."""
    rationale: str = ""
    """Why the answer is right, in the writer's words."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture and what is in it, exactly."""

    image: Image.Image
    facts: Mapping[str, str]
    """The sample's facets, beside its knobs; one that has a knob's name must have the knob's value."""
    scene: Scene | None = None
    """A `SceneProgram`'s display list."""
    written: Written | None = None
    """A `SceneProgram`'s question."""


@runtime_checkable
class Generator(Protocol):
    """A program that draws pictures with exactly known answers."""

    name: str
    licence: str
    """Of the pictures and questions."""

    def categories(self) -> tuple[str, ...]:
        """Categories that it can supply."""

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """What a planner may choose for a picture of this category, and its values. Any values go together."""

    def draw(self, knobs: Mapping[str, str], rng: random.Random) -> Drawn:
        """A picture with what the knobs say; the rest is drawn by `rng` and nothing else."""


@runtime_checkable
class PixelReader(Protocol):
    """Says how facts are asked about, and finds answers in pixels."""

    vocabulary: Mapping[str, tuple[str, ...]]
    """All values of each fact."""

    def forms(self, category: str) -> tuple[Form, ...]:
        """Ways to ask in this category."""

    def answer(self, image: Image.Image, question: str) -> str:
        """The answer read from the pixels and the question alone, knowing nothing of `draw` or of a proposed answer.

        ValueError: the question is not understood, or supposes something that is not in the picture.
        """


@runtime_checkable
class PixelProgram(Generator, PixelReader, Protocol):
    """A program whose pictures can be read back from their pixels."""


@runtime_checkable
class FactReader(PixelReader, Protocol):
    """A program that finds out what is in pictures that it did not draw: those of a pool."""

    def read(self, image: Image.Image) -> Mapping[str, str]:
        """The facts of a picture. ValueError: it is none of those that this program knows."""


@runtime_checkable
class PoolProgram(Generator, FactReader, Protocol):
    """A program that a source of kind pool may name."""


@runtime_checkable
class SceneProgram(Generator, Protocol):
    """A program that asks by itself, and can work out the answer from what was drawn where."""

    def facets(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """The facts that `draw` reports in this category, and all their values; the knobs are among them."""

    def solve(self, scene: Scene, question: str, choices: Sequence[str]) -> str:
        """The answer worked out from display list, question and options alone.

        ValueError: the question is not understood, supposes something that is not in the picture, or the picture
        contradicts itself.
        """


@runtime_checkable
class LimitedProgram(Generator, Protocol):
    """A program that cannot go on for ever: it has only so many facts to show."""

    def supply(self, category: str) -> int | None:
        """Most different samples of a category that it can make; None: no limit."""


Program = PixelReader | SceneProgram
"""Who can take the second look at a picture; a `PixelReader` also says what may be asked."""


def load_programs(sources: Sequence[Source]) -> list[Generator]:
    """The drawing programs of `spec.generation.sources`, in their order. BadConfig: one is not installed."""
    programs: list[Generator] = []
    for place, source in enumerate(sources):
        if source.kind is not SourceKind.RENDER:
            continue
        program = _load(place, source)
        if not isinstance(program, PixelProgram | SceneProgram):
            raise _unfit(
                place,
                source,
                f"it needs {', '.join(sorted(_NEEDED))}, and {' and '.join(_PIXEL)} or {' and '.join(_SCENE)}",
            )
        programs.append(program)
    return programs


def load_reader(place: int, source: Source) -> PoolProgram:
    """The program that a source of kind pool names, at its place. BadConfig: it is not installed, or reads nothing."""
    program = _load(place, source)
    if not isinstance(program, PoolProgram):
        raise _unfit(place, source, f"it needs {', '.join(sorted(_NEEDED))}, {', '.join(_PIXEL)} and read")
    return program


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _load(place: int, source: Source) -> object:
    installed = _installed()
    if source.program not in installed:
        raise BadConfig(
            "UnknownProgram",
            f"spec.generation.sources[{place}].program is {source.program!r}; installed are "
            f"{', '.join(sorted(installed)) or 'none'}: name one of them, or install a package that brings it",
        )
    return installed[source.program].load()()


def _unfit(place: int, source: Source, lacks: str) -> BadConfig:
    where = _installed()[source.program or ""].value
    what = "reads no pictures of a pool" if source.kind is SourceKind.POOL else "is no generator"
    return BadConfig("UnknownProgram", f"spec.generation.sources[{place}].program: {where} {what}: {lacks}")


_NEEDED = {"name", "licence", "categories", "knobs", "draw"}
_PIXEL = ("vocabulary", "forms", "answer")
_SCENE = ("facets", "solve")
