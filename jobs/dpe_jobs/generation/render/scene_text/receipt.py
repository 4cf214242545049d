"""A receipt on a table."""

import random
from collections.abc import Mapping

from dpe_api.artifacts import AnswerType
from dpe_jobs.generation.render import Written
from dpe_jobs.generation.render.pen import Pen, text_size, tinted
from dpe_jobs.generation.render.scene_text.words import GOODS, SHOPS, NoRoom, money, prices

_INK = "#2a2a2e"


def draw(pen: Pen, knobs: Mapping[str, str], rng: random.Random) -> Written:
    """Paint a receipt and ask about it."""
    much, large = knobs["clutter"] == "much", knobs["letters"] == "large"
    count = rng.randint(8, 11) if much else rng.randint(3, 5)
    size = float(rng.choice((17, 18, 19)) if large else rng.choice((11, 12)))
    goods = rng.sample(GOODS, count)
    bought = dict(zip(goods, prices(count, rng), strict=True))
    shop = rng.choice(SHOPS)
    date = f"{rng.randint(1, 28):02d}/{rng.randint(1, 12):02d}/{rng.randint(2015, 2024)}"
    _paint(pen, shop, date, bought, size, rng)
    return _ask(knobs["asks"], shop, date, bought, rng)


def _paint(pen: Pen, shop: str, date: str, bought: Mapping[str, int], size: float, rng: random.Random) -> None:
    step = size * rng.uniform(1.5, 1.7)
    wide = max(230.0, 17 * size)
    high = step * (len(bought) + 4.6) + 30
    if wide > pen.width - 40 or high > pen.height - 30:
        raise NoRoom
    left = rng.uniform(20, pen.width - 20 - wide)
    top = rng.uniform(14, pen.height - 14 - high)
    pen.rect((left + 4, top + 5, left + wide + 4, top + high + 5), "#5c4c3c", "shadow")
    pen.rect((left, top, left + wide, top + high), tinted("#f8f7f2", rng, 5), "paper")
    begin, end, y = left + 18, left + wide - 18, top + 14 + step * 0.6
    pen.text(((begin + end) / 2, y), shop, size * 1.15, _INK, "head", font="mono bold")
    pen.text(((begin + end) / 2, y + step), date, size, _INK, "date", font="mono")
    y += step * 2.2
    for name, cents in [*bought.items(), ("TOTAL", sum(bought.values()))]:
        font = "mono bold" if name == "TOTAL" else "mono"
        if name == "TOTAL":
            pen.line([(begin, y - step * 0.35), (end, y - step * 0.35)], _INK, 1.2, "rule")
            y += step * 0.3
        if text_size(name, size, font)[0] + text_size(money(cents), size, font)[0] > end - begin - size:
            raise NoRoom
        pen.text((begin, y), name, size, _INK, "text", font=font, anchor="lm")
        pen.text((end, y), money(cents), size, _INK, "text", font=font, anchor="rm")
        y += step


def _ask(asks: str, shop: str, date: str, bought: Mapping[str, int], rng: random.Random) -> Written:
    name, other = rng.sample(list(bought), 2)
    if asks == "compare":
        word, dearer = rng.choice((("more", True), ("less", False)))
        chosen = name if (bought[name] > bought[other]) == dearer else other
        question = f"What did the customer pay {word} for, {name} or {other}?"
        return Written(question, chosen, AnswerType.CHOICE, (name, other))
    if asks == "count":
        bound = rng.choice([b for b in range(200, 1500, 100) if b not in bought.values()])
        question, count = rng.choice(
            (
                ("How many different goods were bought?", len(bought)),
                (f"How many of the goods cost more than {money(bound)}?", sum(c > bound for c in bought.values())),
                (f"How many of the goods cost less than {money(bound)}?", sum(c < bound for c in bought.values())),
            )
        )
        return Written(question, str(count), AnswerType.NUMBER)
    question, answer, kind = rng.choice(
        (
            (f"What is the price of {name} on the receipt?", money(bought[name]), AnswerType.NUMBER),
            (f"What is the price of {other} on the receipt?", money(bought[other]), AnswerType.NUMBER),
            ("What is the total of the receipt?", money(sum(bought.values())), AnswerType.NUMBER),
            ("Which shop is the receipt from?", shop, AnswerType.EXACT),
            ("Which date is printed on the receipt, as it is written there?", date, AnswerType.EXACT),
        )
    )
    return Written(question, answer, kind)
