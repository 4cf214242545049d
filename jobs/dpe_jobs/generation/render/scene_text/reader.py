"""Reads signs, jars, receipts and notices from their display list: texts belong to what they stand on, or beside."""

import colorsys
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from dpe_jobs.generation.render.legible import rgb
from dpe_jobs.generation.render.scene import Mark, Scene

_LINE = 6.0  # pixels between the middles of texts of one line


def solve(scene: Scene, question: str, choices: Sequence[str]) -> str:
    """The answer. ValueError: another question, or a name that nothing bears."""
    roles = {mark.role for mark in scene.marks}
    if "sign" in roles:
        answer = _at_signs(scene, question)
    elif "jar" in roles:
        answer = _at_shelf(scene, question)
    elif "paper" in roles:
        answer = _at_receipt(scene, question)
    else:
        answer = _at_notice(scene, question)
    if choices and answer not in choices:
        raise ValueError(f"{answer!r} is none of {list(choices)}")
    return answer


def _inside(text: Mark, body: Mark) -> bool:
    left, top, right, bottom = body.box
    return left <= text.center[0] <= right and top <= text.center[1] <= bottom


def _named(question: str, names: Sequence[str], wanted: int) -> list[str]:
    """So many of the names, in the question's order; the longer one where one is part of another."""
    ordered = sorted(set(names), key=lambda name: (-len(name), name))
    found = re.findall("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in ordered), question)
    if len(found) != wanted:
        raise ValueError(f"{question!r} names {found}, not {wanted}")
    return found


def _amount(question: str) -> Decimal:
    found = re.search(r"than (\d+(?:\.\d\d)?)(?: km away)?\?$", question)
    if not found:
        raise ValueError(f"{question!r} names no bound")
    return Decimal(found[1])


@dataclass(frozen=True, slots=True)
class _Sign:
    km: int
    side: str
    color: str


def _color(mark: Mark) -> str:
    hue, saturation, value = colorsys.rgb_to_hsv(*(v / 255 for v in rgb(mark.color)))
    if saturation < 0.1:
        return "white" if value > 0.9 else "gray"
    degrees = hue * 360
    if degrees < 40:
        return "brown"
    return "yellow" if degrees < 70 else "green" if degrees < 180 else "blue"


def _signs(scene: Scene) -> dict[str, _Sign]:
    found = {}
    for board in scene.all("sign"):
        texts = sorted((t for t in scene.all("text") if _inside(t, board)), key=lambda t: t.box[0])
        if len(texts) != 2 or not texts[1].text.endswith(" km"):
            raise ValueError(f"a sign says {[t.text for t in texts]}")
        # it points to where one corner is alone
        left, _, right, _ = board.box
        ends = [sum(abs(x - end) < 0.5 for x, _ in board.points) for end in (left, right)]
        side = "left" if ends[0] == 1 else "right"
        found[texts[0].text] = _Sign(int(texts[1].text.removesuffix(" km")), side, _color(board))
    return found


def _at_signs(scene: Scene, question: str) -> str:
    signs = _signs(scene)
    if side := re.search(r"point to the (left|right)\?$", question):
        if question.startswith("How many"):
            return str(sum(s.side == side[1] for s in signs.values()))
        return signs[_named(question, list(signs), 1)[0]].side
    if question.startswith("Does the sign to"):
        return signs[_named(question, list(signs), 1)[0]].side
    if "more than" in question:
        return str(sum(s.km > _amount(question) for s in signs.values()))
    if color := re.search(r"How many signs are (\w+)\?", question):
        return str(sum(s.color == color[1] for s in signs.values()))
    if color := re.search(r"does the (\w+) sign name", question):
        (town,) = [name for name, s in signs.items() if s.color == color[1]]
        return town
    if "nearer" in question or "farther" in question:
        pair = _named(question, list(signs), 2)
        return (min if "nearer" in question else max)(pair, key=lambda name: signs[name].km)
    if question.startswith("How far is it to"):
        return f"{signs[_named(question, list(signs), 1)[0]].km} km"
    raise ValueError(f"{question!r} is no question about signs")


def _jars(scene: Scene) -> list[tuple[str, Decimal]]:
    texts, tags = scene.all("text"), scene.all("tag")
    found = []
    for jar in scene.all("jar"):
        (name,) = [t.text for t in texts if _inside(t, jar)]
        # its tag is the nearest one below its foot
        below = [tag for tag in tags if tag.box[1] > jar.box[3]]
        tag = min(below, key=lambda t: abs(t.center[0] - jar.center[0]) + (t.box[1] - jar.box[3]))
        (price,) = [t.text for t in texts if _inside(t, tag)]
        found.append((name, Decimal(price)))
    return found


def _at_shelf(scene: Scene, question: str) -> str:
    jars = _jars(scene)
    price = dict(jars)
    if any(cost != price[name] for name, cost in jars):
        raise ValueError("the same thing has two prices")
    if question == "How many jars are on the shelves?":
        return str(len(jars))
    if "cost more than" in question:
        return str(sum(cost > _amount(question) for _, cost in jars))
    if question.startswith("How many jars are labelled"):
        (wanted,) = _named(question, list(price), 1)
        return str(sum(name == wanted for name, _ in jars))
    if question.startswith("Which costs"):
        pair = _named(question, list(price), 2)
        return (max if "costs more" in question else min)(pair, key=lambda name: price[name])
    if extreme := re.search(r"What is in the (most expensive|cheapest) jar", question):
        return (min if extreme[1] == "cheapest" else max)(price, key=lambda name: price[name])
    if question.startswith("What does a jar of"):
        return str(price[_named(question, list(price), 1)[0]])
    raise ValueError(f"{question!r} is no question about jars")


def _lines(texts: Sequence[Mark]) -> list[list[Mark]]:
    """Texts line by line, each from left to right."""
    lines: list[list[Mark]] = []
    for text in sorted(texts, key=lambda t: t.center[1]):
        if lines and abs(lines[-1][0].center[1] - text.center[1]) <= _LINE:
            lines[-1].append(text)
        else:
            lines.append([text])
    return [sorted(line, key=lambda t: t.box[0]) for line in lines]


def _at_receipt(scene: Scene, question: str) -> str:
    bought = {}
    for line in _lines(scene.all("text")):
        name, price = (t.text for t in line)
        bought[name] = Decimal(price)
    total = bought.pop("TOTAL")
    if total != sum(bought.values()):
        raise ValueError(f"the total is {total}, the sum {sum(bought.values())}")
    if "total" in question:
        return str(total)
    if "Which shop" in question:
        return scene.all("head")[0].text
    if "Which date" in question:
        return scene.all("date")[0].text
    if question == "How many different goods were bought?":
        return str(len(bought))
    if "cost more than" in question or "cost less than" in question:
        bound, more = _amount(question), "more" in question
        return str(sum((price > bound) if more else (price < bound) for price in bought.values()))
    if paid := re.search(r"pay (more|less) for, ", question):
        pair = _named(question, list(bought), 2)
        return (max if paid[1] == "more" else min)(pair, key=lambda name: bought[name])
    if question.startswith("What is the price of"):
        return str(bought[_named(question, list(bought), 1)[0]])
    raise ValueError(f"{question!r} is no question about a receipt")


def _minutes(text: str) -> int:
    hour, minute = text.split(":")
    return 60 * int(hour) + int(minute)


def _at_notice(scene: Scene, question: str) -> str:
    lines = _lines(scene.all("text"))
    days = [line[0].text for line in lines]
    columns = sorted(scene.all("column"), key=lambda m: m.box[0])
    place = 1
    if columns:
        (room,) = _named(question, [c.text for c in columns], 1)
        place += [c.text for c in columns].index(room)
    elif scene.all("head")[0].text.split(":")[0] not in question:
        raise ValueError(f"{question!r} is about something else")
    hours = {line[0].text: line[place].text for line in lines}
    times = {day: text.split(" - ") for day, text in hours.items() if text != "closed"}
    closed = [day for day in days if day not in times]
    if re.search(r"On how many of the days shown is .+ closed", question):
        return str(len(closed))
    if re.search(r"On which of the days shown is .+ closed", question):
        (only,) = closed
        return only
    end = 0 if " open " in question else 1
    if question.startswith("At what time"):
        return times[_named(question, days, 1)[0]][end]
    if bound := re.search(r"later than (\d+:\d\d)\?$", question):
        return str(sum(_minutes(found[end]) > _minutes(bound[1]) for found in times.values()))
    if "later on" in question:
        one, other = _named(question, days, 2)
        return "yes" if _minutes(times[one][end]) > _minutes(times[other][end]) else "no"
    raise ValueError(f"{question!r} is no question about opening hours")
