"""Questions on where things are and how to get there."""

import random
from itertools import permutations

from dpe_api.artifacts import AnswerType
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.render.grid_maps.town import COMPASS, Cell, Town

_STRAIGHT = ("north", "east", "south", "west")
_DETOUR = 0.7  # of the questions on a route, where there is one that water makes longer


class Unsuitable(Exception):
    """This town does not allow such a question."""


def ask(asks: str, town: Town, rng: random.Random) -> Written:
    """A question with its answer. Unsuitable: build another town."""
    return _ASKS[asks](town, rng)


def _pick(options: list[tuple[str, str]], rng: random.Random) -> tuple[str, str]:
    if not options:
        raise Unsuitable
    return rng.choice(options)


def _at(town: Town) -> dict[Cell, str]:
    return {cell: name for name, cell in town.places.items()}


def _neighbour(town: Town, rng: random.Random) -> Written:
    """The next place in a direction, with any number of cells between."""
    at, found = _at(town), []
    for name, (x, y) in town.places.items():
        for direction in _STRAIGHT:
            dx, dy = town.step(direction)
            cell = x + dx, y + dy
            while town.holds(cell) and cell not in at:
                cell = cell[0] + dx, cell[1] + dy
            if cell in at:
                found.append((f"{name}|{direction}", at[cell]))
    question, answer = _pick(found, rng)
    name, direction = question.split("|")
    asked = f"Starting at the {name} and going straight {direction}, which place do you come to first?"
    return Written(asked, answer, AnswerType.EXACT)


def _direction(town: Town, rng: random.Random) -> Written:
    """Of places that lie exactly in one of eight directions from each other."""
    found = []
    for (one, (x, y)), (other, (u, v)) in permutations(town.places.items(), 2):
        if x == u or y == v or abs(x - u) == abs(y - v):
            far = max(abs(x - u), abs(y - v))
            way = (u - x) // far, (v - y) // far
            found.append((f"{one}|{other}", next(d for d in COMPASS if town.step(d) == way)))
    question, answer = _pick(found, rng)
    one, other = question.split("|")
    others = rng.sample([d for d in COMPASS if d != answer], 3)
    choices = tuple(sorted([answer, *others], key=COMPASS.index))
    return Written(f"In which direction from the {one} is the {other}?", answer, AnswerType.CHOICE, choices)


def _route(town: Town, rng: random.Random) -> Written:
    """Steps around the water."""
    longer, any_route = [], []
    for (one, start), (other, end) in permutations(town.places.items(), 2):
        steps = town.steps(start).get(end)
        apart = abs(start[0] - end[0]) + abs(start[1] - end[1])
        if steps is None or steps < 2:
            continue
        any_route.append((f"{one}|{other}", str(steps)))
        if steps > apart:
            longer.append(any_route[-1])
    question, answer = _pick(longer if longer and rng.random() < _DETOUR else any_route, rng)
    one, other = question.split("|")
    water = " and never through water" if town.water else ""
    asked = (
        f"Moving only between cells that share a side{water}, what is the least number of steps from the {one} to the "
        f"{other}?"
    )
    return Written(asked, answer, AnswerType.NUMBER)


def _distance(town: Town, rng: random.Random) -> Written:
    """In metres, of places in one row or column."""
    found = []
    for (one, (x, y)), (other, (u, v)) in permutations(town.places.items(), 2):
        if x == u or y == v:
            found.append((f"{one}|{other}", f"{(abs(x - u) + abs(y - v)) * town.metres} m"))
    question, answer = _pick(found, rng)
    one, other = question.split("|")
    asked = f"How far is it in a straight line from the middle of the {one}'s cell to the middle of the {other}'s cell?"
    return Written(asked, answer, AnswerType.NUMBER)


def _walk(town: Town, rng: random.Random) -> Written:
    """Where so many cells in two directions lead to."""
    found = []
    for (one, (x, y)), (other, (u, v)) in permutations(town.places.items(), 2):
        if x == u or y == v:
            continue
        ways = []
        for direction in _STRAIGHT:
            dx, dy = town.step(direction)
            cells = (u - x) * dx + (v - y) * dy
            if cells > 0:
                ways.append(f"{cells} {'cell' if cells == 1 else 'cells'} {direction}")
        rng.shuffle(ways)
        found.append((f"{one}|{ways[0]} and then {ways[1]}", other))
    question, answer = _pick(found, rng)
    one, way = question.split("|")
    return Written(f"Start at the {one}, go {way}: which place are you at?", answer, AnswerType.EXACT)


def _position(town: Town, rng: random.Random) -> Written:
    """By the letters and numbers at the map's edge."""
    name, (x, y) = rng.choice(list(town.places.items()))
    cell = f"{chr(ord('A') + x)}{y + 1}"
    if rng.random() < 0.5:
        return Written(f"Which place is in cell {cell}?", name, AnswerType.EXACT)
    return Written(f"In which cell, named by letter and number as in A1, is the {name}?", cell, AnswerType.EXACT)


_ASKS = {
    "neighbour": _neighbour,
    "direction": _direction,
    "route": _route,
    "distance": _distance,
    "walk": _walk,
    "position": _position,
}
ASKS = tuple(_ASKS)
