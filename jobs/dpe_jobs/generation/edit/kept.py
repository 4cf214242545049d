"""The questions about one coloured shape, for edits that leave its colour, its shape or both as they were."""

from collections.abc import Mapping

from PIL import Image

from dpe_jobs.generation.render import Form
from dpe_jobs.generation.render.shapes import Shapes
from dpe_jobs.generation.render.shapes_reader import answer as read_shape

_SHAPES = Shapes()
CATEGORIES = _SHAPES.categories()
VOCABULARY = _SHAPES.vocabulary
FACTS = ("color", "shape")


def knobs(category: str) -> Mapping[str, tuple[str, ...]]:
    """As the program `shapes` has them."""
    return _SHAPES.knobs(category)


def forms(category: str, *, without: str = "") -> tuple[Form, ...]:
    """Ways to ask in a category; `without`: a fact that is known no more, so that no form may ask for it or name it."""
    found = _SHAPES.forms(category)
    return tuple(f for f in found if not without or (f.asks != without and f"{{{without}}}" not in f.text))


def originals(knobs: Mapping[str, str], *names: str) -> tuple[Mapping[str, str], ...]:
    """One picture with these facts as the knobs have them."""
    return ({name: knobs[name] for name in names},)


def answer(image: Image.Image, question: str) -> str:
    """Colour, shape or existence, read from the pixels."""
    return read_shape(image, question)
