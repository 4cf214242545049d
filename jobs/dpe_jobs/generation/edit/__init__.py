"""Programs that edit pictures so that the answer stays exactly known: the entry point group `dpe.edits`.

A package adds one by an entry point that names a class without arguments, in the form of `Edit`. A resource names it in
`spec.generation.sources`, kind edit. `edit/endpoint.py` is the other kind of edit: a model's, whose result nobody knows
before somebody looks.

An edit says of which facts its originals must be, and hands out the facts of what it made: carried over where the edit
keeps them, changed where it changes them, left out where it destroys them, and those of the edit itself. Its questions
are put and checked like a `PixelProgram`'s: the second look reads the edited picture alone, by code that shares nothing
with the edit.
"""

import hashlib
import random
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

from PIL import Image

from dpe_api.generation_spec import Source, SourceKind
from dpe_jobs.generation.images import NoImage, Origin, Picture
from dpe_jobs.generation.render import Drawn, Form
from dpe_jobs.runtime import BadConfig

GROUP = "dpe.edits"


@runtime_checkable
class Edit(Protocol):
    """A program that changes pictures in a known way."""

    name: str
    vocabulary: Mapping[str, tuple[str, ...]]
    """All values of each fact that a form asks about."""

    def categories(self) -> tuple[str, ...]:
        """Categories that it can supply."""

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        """What a planner may choose for a picture of this category, and its values. Any values go together."""

    def originals(self, category: str, knobs: Mapping[str, str]) -> tuple[Mapping[str, str], ...]:
        """One entry for each picture that it takes: facts that the picture must be known to have; {}: any picture."""

    def forms(self, category: str) -> tuple[Form, ...]:
        """Ways to ask in this category."""

    def apply(self, category: str, pictures: Sequence[Picture], knobs: Mapping[str, str], rng: random.Random) -> Drawn:
        """The edited picture and its facts; what knobs leave open is drawn by `rng` and nothing else.

        NoImage: with these pictures no answer would be certain; another one may do.
        """

    def answer(self, image: Image.Image, question: str) -> str:
        """The answer read from the edited picture and the question alone.

        ValueError: the question is not understood, or the picture gives no certain answer.
        """


def load_edits(sources: Sequence[Source]) -> list[Edit]:
    """The edit programs of `spec.generation.sources`, in their order. BadConfig: one is not installed."""
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    edits: list[Edit] = []
    for place, source in enumerate(sources):
        if source.kind is not SourceKind.EDIT or source.program is None:
            continue
        if source.program not in installed:
            raise BadConfig(
                "UnknownProgram",
                f"spec.generation.sources[{place}].program is {source.program!r}; installed edits are "
                f"{', '.join(sorted(installed)) or 'none'}: name one of them, or install a package that brings it",
            )
        edit = installed[source.program].load()()
        if not isinstance(edit, Edit):
            raise BadConfig(
                "UnknownProgram",
                f"spec.generation.sources[{place}].program: {installed[source.program].value} is no edit: it needs "
                f"name, vocabulary, categories, knobs, originals, forms, apply and answer",
            )
        edits.append(edit)
    return edits


def licence_of(parents: Sequence[Origin]) -> str:
    """The licence of a work made of others (SPDX expression); empty when one of theirs is unknown.

    NoImage: a licence allows no changed copies.
    """
    licences = sorted({parent.licence for parent in parents})
    for licence in licences:
        if "ND" in licence.upper().split("-"):
            raise NoImage(f"licence {licence} allows no edited copies")
    return "" if "" in licences else " AND ".join(licences)


def edited(name: str, image: Image.Image, pictures: Sequence[Picture], arguments: Mapping[str, str]) -> Origin:
    """Where an edited picture comes from. NoImage: an original's licence allows no edited copies."""
    content = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()[:16]
    parents = tuple(picture.origin for picture in pictures)
    said = ",".join(f"{key}={value}" for key, value in sorted(arguments.items()))
    return Origin(
        kind=SourceKind.EDIT,
        source=f"edit:{name}",
        id=f"{content}({said})" if said else content,
        licence=licence_of(parents),
        title=next((parent.title for parent in parents if parent.title), ""),
        author="; ".join(dict.fromkeys(parent.author for parent in parents if parent.author)),
        parents=parents,
    )


def make(
    edit: Edit, category: str, pictures: Sequence[Picture], knobs: Mapping[str, str], rng: random.Random
) -> Picture:
    """The edited picture, with its facts and where it comes from. NoImage: these pictures cannot be edited so."""
    wanted = edit.originals(category, knobs)
    if len(pictures) != len(wanted):
        raise ValueError(f"edit {edit.name} takes {len(wanted)} pictures for {category}, got {len(pictures)}")
    for picture, facts in zip(pictures, wanted, strict=True):
        for name, value in facts.items():
            if picture.facts.get(name) != value:
                raise NoImage(
                    f"edit {edit.name} needs a picture whose {name} is {value}; that of "
                    f"{picture.origin.source} {picture.origin.id} is {picture.facts.get(name, 'unknown')}"
                )
    licence_of([picture.origin for picture in pictures])  # refused before work is done
    drawn = edit.apply(category, pictures, knobs, rng)
    origin = edited(edit.name, drawn.image, pictures, knobs)
    call = {"tool": f"edit:{edit.name}", "arguments": dict(knobs), "result": origin.id}
    return Picture(
        image=drawn.image,
        origin=origin,
        facts=drawn.facts,
        tool_calls=(*(before for picture in pictures for before in picture.tool_calls), call),
    )
