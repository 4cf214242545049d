"""Mirrored and turned pictures: of one shape, which stays what it is, or of anything, beside its original."""

import random
from collections.abc import Mapping, Sequence

from PIL import Image

from dpe_jobs.generation.edit import kept, panels, reader
from dpe_jobs.generation.images import NoImage, Picture
from dpe_jobs.generation.render import Drawn, Form

_DIFFERENT = 6.0  # levels of 256, mean: the picture looks otherwise in every position
_TURNS = {
    "90": Image.Transpose.ROTATE_270,  # Pillow turns against the clock
    "180": Image.Transpose.ROTATE_180,
    "270": Image.Transpose.ROTATE_90,
}
_MIRRORS = {"horizontally": Image.Transpose.FLIP_LEFT_RIGHT, "vertically": Image.Transpose.FLIP_TOP_BOTTOM}


def _certain(image: Image.Image, moves: Mapping[str, Image.Transpose]) -> None:
    """NoImage unless the picture and all that can be made of it differ from each other."""
    looks = [image, *(image.transpose(move) for move in moves.values())]
    for place, look in enumerate(looks):
        for other in looks[:place]:
            if panels.unlike(look, other) < _DIFFERENT:
                raise NoImage("the picture looks nearly the same in another position")


class _Moves:
    """What both programs share: a knob that names a move, and a category that asks for it."""

    name: str
    knob: str
    own: str
    """The category that asks for the move."""
    moves: Mapping[str, Image.Transpose]
    text: str
    vocabulary: Mapping[str, tuple[str, ...]]

    def categories(self) -> tuple[str, ...]:
        return (*kept.CATEGORIES, self.own)

    def knobs(self, category: str) -> Mapping[str, tuple[str, ...]]:
        move = {self.knob: tuple(self.moves)}
        return move if category == self.own else {**kept.knobs(category), **move}

    def originals(self, category: str, knobs: Mapping[str, str]) -> tuple[Mapping[str, str], ...]:
        return ({},) if category == self.own else kept.originals(knobs, *kept.FACTS)

    def forms(self, category: str) -> tuple[Form, ...]:
        return (Form(self.text, self.knob),) if category == self.own else kept.forms(category)

    def apply(self, category: str, pictures: Sequence[Picture], knobs: Mapping[str, str], rng: random.Random) -> Drawn:
        (picture,) = pictures
        move, facts = self.moves[knobs[self.knob]], {self.knob: knobs[self.knob]}
        if category != self.own:
            return Drawn(picture.image.transpose(move), {name: picture.facts[name] for name in kept.FACTS} | facts)
        left = panels.square(picture.image)
        _certain(left, self.moves)
        return Drawn(panels.beside(left, left.transpose(move)), facts)

    def answer(self, image: Image.Image, question: str) -> str:
        return reader.answer(image, question) if reader.is_about_edit(question) else kept.answer(image, question)


class Flip(_Moves):
    """The program `flip`."""

    name, knob, own, moves = "flip", "mirrored", "mirroring", _MIRRORS
    text = "is the right picture the left one mirrored horizontally or vertically?"
    vocabulary: Mapping[str, tuple[str, ...]] = {**kept.VOCABULARY, "mirrored": tuple(_MIRRORS)}


class Rotate(_Moves):
    """The program `rotate`: quarter turns."""

    name, knob, own, moves = "rotate", "turned", "rotation", _TURNS
    text = "by how many degrees clockwise is the right picture turned against the left one?"
    vocabulary: Mapping[str, tuple[str, ...]] = {**kept.VOCABULARY, "turned": tuple(_TURNS)}
