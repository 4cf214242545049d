"""Opening hours on a board."""

import random
from collections.abc import Mapping, Sequence

from dpe_api.artifacts import AnswerType
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.render.pen import Pen, text_size
from dpe_jobs.generation.render.scene_text.words import DAYS, HOUSES, ROOMS, NoRoom

_BOARDS = (
    # board, frame, ink
    ("#fafaf5", "#3d4a57", "#1d232a"),
    ("#1f3d36", "#8a6a3f", "#f2f5ef"),
    ("#173a5e", "#d6dbe0", "#ffffff"),
    ("#fff3cf", "#7a4a1f", "#3b2a12"),
    ("#3a1f2b", "#caa46a", "#fbf1e4"),
    ("#e9eef3", "#a3341f", "#20262c"),
)
Hours = tuple[int, int] | None
"""Opening and closing, in half hours after midnight; None: closed."""


def draw(pen: Pen, knobs: Mapping[str, str], rng: random.Random) -> Written:
    """Paint a notice and ask about it."""
    much, large = knobs["clutter"] == "much", knobs["letters"] == "large"
    house = rng.choice(HOUSES)
    days = DAYS if much else DAYS[: rng.randint(4, 5)]
    rooms = rng.sample(ROOMS, 2) if much else [house]
    size = float(rng.choice((15, 16)) if large and much else rng.choice((17, 18, 19)) if large else 11.5)
    hours = {room: [_hours(rng) for _ in days] for room in rooms}
    _paint(pen, house, days, hours, size, rng)
    return _ask(knobs["asks"], days, hours, rng)


def _hours(rng: random.Random) -> Hours:
    return None if rng.random() < 0.22 else (rng.randint(14, 22), rng.randint(30, 44))


def clock(half_hours: int) -> str:
    """As it is printed: 9:30."""
    return f"{half_hours // 2}:{'30' if half_hours % 2 else '00'}"


def _paint(
    pen: Pen, house: str, days: Sequence[str], hours: Mapping[str, Sequence[Hours]], size: float, rng: random.Random
) -> None:
    board, frame, ink = rng.choice(_BOARDS)
    step = size * rng.uniform(1.7, 1.95)
    name, column = text_size("Wednesday", size)[0] + size * 1.6, text_size("22:00 - 22:00", size)[0] + size * 1.6
    wide = max(name + column * len(hours) + 30, text_size(f"{house}: opening hours", size * 1.15, "bold")[0] + 50)
    head = 2.0 if len(hours) > 1 else 1.0
    high = step * (len(days) + head + 0.8) + 34
    if wide > pen.width - 40 or high > pen.height - 40:
        raise NoRoom
    left, top = rng.uniform(18, pen.width - 18 - wide), rng.uniform(18, pen.height - 18 - high)
    pen.rect((left - 7, top - 7, left + wide + 7, top + high + 7), frame, "frame", radius=5)
    pen.rect((left, top, left + wide, top + high), board, "board")
    y = top + 16 + step * 0.5
    pen.text((left + wide / 2, y), f"{house}: opening hours", size * 1.15, ink, "head", font="bold")
    y += step * 1.3
    if len(hours) > 1:
        for place, room in enumerate(hours):
            pen.text((left + 16 + name + column * place, y), room, size, ink, "column", font="bold", anchor="lm")
        y += step
    for number, day in enumerate(days):
        pen.text((left + 16, y), day, size, ink, "text", anchor="lm")
        for place, times in enumerate(hours.values()):
            found = times[number]
            text = "closed" if found is None else f"{clock(found[0])} - {clock(found[1])}"
            pen.text((left + 16 + name + column * place, y), text, size, ink, "text", anchor="lm")
        y += step


def _ask(asks: str, days: Sequence[str], hours: Mapping[str, Sequence[Hours]], rng: random.Random) -> Written:
    room = rng.choice(list(hours))
    times = dict(zip(days, hours[room], strict=True))
    end, word = rng.choice(((0, "open"), (1, "close")))
    open_days = {day: found[end] for day, found in times.items() if found is not None}
    if asks == "count":
        bound = rng.randrange(16, 22, 2) if end == 0 else rng.randrange(32, 44, 2)
        later = sum(value > bound for value in open_days.values())
        question, count = rng.choice(
            (
                (f"On how many of the days shown is the {room} closed?", len(times) - len(open_days)),
                (f"On how many of the days shown does the {room} {word} later than {clock(bound)}?", later),
            )
        )
        return Written(question, str(count), AnswerType.NUMBER)
    if asks == "compare":
        pairs = [(a, b) for a in open_days for b in open_days if open_days[a] != open_days[b]]
        if not pairs:
            raise NoRoom
        one, other = rng.choice(pairs)
        question = f"Does the {room} {word} later on {one} than on {other}?"
        return Written(question, "yes" if open_days[one] > open_days[other] else "no", AnswerType.YES_NO)
    if not open_days:
        raise NoRoom
    day = rng.choice(list(open_days))
    if rng.random() < 0.2 and len(open_days) == len(times) - 1:
        closed = next(d for d in times if d not in open_days)
        return Written(f"On which of the days shown is the {room} closed?", closed, AnswerType.EXACT)
    question = f"At what time does the {room} {word} on {day}?"
    return Written(question, clock(open_days[day]), AnswerType.EXACT)
