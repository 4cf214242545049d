"""Programs that draw images whose contents they know exactly: the entry point group `dpe.generators`.

A package adds one by an entry point that names a class without arguments, in the form of `Generator`. A resource names
it in `spec.generation.sources`.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Literal, Protocol, runtime_checkable

from PIL import Image

from dpe_api.spec import RenderSource
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
class Drawn:
    """A picture and what is in it, exactly."""

    image: Image.Image
    facts: Mapping[str, str]


@runtime_checkable
class Generator(Protocol):
    """A program that draws pictures, says how to ask about them, and can read them back."""

    name: str
    licence: str
    """Of the pictures and questions."""
    vocabulary: Mapping[str, tuple[str, ...]]
    """All values of each fact."""

    def categories(self) -> tuple[str, ...]:
        """Categories that it can supply."""

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """What a planner may choose for a picture of this category, and its values."""

    def forms(self, category: str) -> tuple[Form, ...]:
        """Ways to ask in this category."""

    def draw(self, knobs: Mapping[str, str], rng: random.Random) -> Drawn:
        """A picture with what the knobs say; the rest is drawn by `rng` and nothing else."""

    def answer(self, image: Image.Image, question: str) -> str:
        """The answer read from the pixels and the question alone, knowing nothing of `draw` or of a proposed answer.

        ValueError: the question is not understood, or supposes something that is not in the picture.
        """


def load_programs(sources: Sequence[RenderSource]) -> list[Generator]:
    """The programs of `spec.generation.sources`, in order of preference. BadConfig: one is not installed."""
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    programs = []
    for place, source in enumerate(sources):
        if source.program not in installed:
            raise BadConfig(
                "UnknownProgram",
                f"spec.generation.sources[{place}].program is {source.program!r}; installed are "
                f"{', '.join(sorted(installed)) or 'none'}: name one of them, or install a package that brings it",
            )
        program = installed[source.program].load()()
        if not isinstance(program, Generator):
            raise BadConfig(
                "UnknownProgram",
                f"spec.generation.sources[{place}].program: {installed[source.program].value} is no generator: "
                f"it needs {', '.join(sorted(_NEEDED))}",
            )
        programs.append(program)
    return programs


def choose_program(programs: Sequence[Generator], category: str) -> Generator | None:
    """The first program that can supply a category."""
    return next((program for program in programs if category in program.categories()), None)


_NEEDED = {"name", "licence", "vocabulary", "categories", "knobs", "forms", "draw", "answer"}
