"""Units as models write them, converted by pint. Nothing here loads pint before two different units meet."""

import re
from functools import lru_cache
from typing import Any

SUFFIXES = {"k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "bn": 1e9, "mn": 1e6, "T": 1e12}
_WORD = r"(?:°\s?[CFcf]\b|°|%|‰|[A-Za-zµμΩÅ¢]+(?:\^?-?[1-3](?!\d))?)"
_SHAPE = r"(?:(?:square|sq\.?|cubic|cu\.?)\s+)?"
_WRITTEN = re.compile(
    rf"\s?[-(]?\s?((?:(?:degrees?|deg\.?|°)\s+(?:celsius|fahrenheit|kelvin|[CFK]\b)|(?:fluid|light|nautical|metric)[\s-]\w+"
    rf"|{_SHAPE}{_WORD}(?:\s(?:squared|cubed)\b)?)(?:\s?(?:/|\bper\b|·|⋅)\s?{_SHAPE}{_WORD})?)",
    re.IGNORECASE,
)
_NO_UNITS = frozenset(
    (
        *("a", "an", "and", "are", "as", "at", "be", "but", "by", "can", "for", "from", "has", "have", "he", "i", "if"),
        *("in", "is", "it", "no", "not", "of", "on", "or", "out", "per", "that", "the", "then", "there", "they"),
        *("this", "to", "was", "were", "which", "with"),
    )
)
_CURRENCIES = {
    "USD": ("$", "us$", "usd", "dollar", "dollars"),
    "EUR": ("€", "eur", "euro", "euros"),
    "GBP": ("£", "gbp", "quid"),
    "JPY": ("¥", "jpy", "yen"),
    "CNY": ("cny", "rmb", "yuan", "元"),
    "INR": ("₹", "inr", "rs", "rs.", "rupee", "rupees"),
    "KRW": ("₩", "krw", "won"),
}
_CODES = {word: code for code, words in _CURRENCIES.items() for word in (*words, code.lower())}
_PERCENT = frozenset({"%", "percent", "percentage", "pct", "per cent", "percentages"})
_ALIASES = {
    "°": "degree",
    "°c": "degC",
    "celsius": "degC",
    "°f": "degF",
    "fahrenheit": "degF",
    "kmh": "km/h",
    "kmph": "km/h",
    "sqft": "ft^2",
    "sqm": "m^2",
    "lbs": "lb",
    "fluid ounce": "fluid_ounce",
    "fluid ounces": "fluid_ounce",
    "light year": "light_year",
    "light years": "light_year",
    "nautical mile": "nautical_mile",
    "nautical miles": "nautical_mile",
    "metric ton": "metric_ton",
    "metric tons": "metric_ton",
    "metric tonnes": "metric_ton",
    "cents": "cent",
    "¢": "cent",
}


def written_at(text: str, start: int) -> tuple[str | None, int]:
    """The unit that follows a number, as written, and how many characters it takes. `5 in total` has none."""
    found = _WRITTEN.match(text, start)
    if found is None:
        if text[start : start + 2].lstrip().startswith("元"):
            return "CNY", 1
        return None, 0
    unit = " ".join(found[1].split())
    first = re.split(r"[\s/]", unit)[0].lower()
    if first in _NO_UNITS:
        ends = re.match(r"\s*(?:[.,;:!?)]|\Z)", text[found.end() :])
        if not (first == "in" and unit.lower() == "in" and ends):
            return (_spelled_percent(text, start)) if first == "per" else (None, 0)
    return currency(unit) or unit, found.end() - start


def _spelled_percent(text: str, start: int) -> tuple[str | None, int]:
    found = re.match(r"\s?per cent\b", text[start:], re.IGNORECASE)
    return ("%", found.end()) if found else (None, 0)


def currency(word: str) -> str | None:
    """The code of a currency by its sign or name."""
    return _CODES.get(word.lower())


def is_percent(unit: str | None) -> bool:
    """Whether it is a percentage."""
    return unit is not None and unit.lower() in _PERCENT


def alike(one: str, other: str) -> bool:
    """Whether two units are the same word; singular and plural are."""
    if {one.lower(), other.lower()} <= {"gbp", "pound", "pounds"}:
        return True  # of money, where one of them is
    return one == other or (len(one) > 2 and one.rstrip("s").lower() == other.rstrip("s").lower())


@lru_cache(1)
def _registry() -> Any:
    import pint  # 0.3 s, which most graders need not pay

    registry = pint.UnitRegistry(autoconvert_offset_to_baseunit=True, cache_folder=None)
    for code in _CURRENCIES:
        registry.define(f"{code} = [money_{code}]")
    registry.define("cent = 0.01 USD")
    return registry


def _spelling(unit: str) -> str:
    text = unit.replace("µ", "u").replace("μ", "u").replace("⋅", "*").replace("·", "*")
    text = re.sub(r"\bdeg(?:rees?|\.)?\s+(?=celsius|fahrenheit)|°\s+(?=[CFcf]\b)", "", text, flags=re.IGNORECASE)
    text = re.sub(r"\A(?:degrees?|deg\.?|°)\s?([CF])\Z", lambda m: f"°{m[1]}", text, flags=re.IGNORECASE)
    if (alias := _ALIASES.get(text.lower())) is not None:
        return alias
    text = re.sub(r"\bsq\.?\s", "square ", text)
    text = re.sub(r"\bcu\.?\s", "cubic ", text)
    return re.sub(r"(?<=[A-Za-z])(-?[1-3])\b", r"^\1", text)


@lru_cache(4096)
def _unit(unit: str) -> Any | None:
    """The unit of pint, or None when it knows none by this name. Case as written first: mW is not MW."""
    import pint

    text = _spelling(unit)
    if len(text) > 40:
        return None
    for spelling in (text, text.lower()):
        try:
            return _registry().parse_units(spelling)
        except (pint.PintError, AttributeError, ValueError, TypeError, ArithmeticError, SyntaxError, KeyError):
            continue
    return None


def known(unit: str | None) -> bool:
    """Whether a word is a unit, and not what is counted: cm, but not apples."""
    return unit is not None and (is_percent(unit) or _unit(unit) is not None)


def name(unit: str) -> str:
    """A unit's short name, the same for every way to write it."""
    if is_percent(unit):
        return "%"
    found = _unit(unit)
    return unit if found is None else f"{found:~P}"


def convert(value: float, unit: str, to: str) -> float | None:
    """A value in another unit; None when the units measure different things. A bare C or F is a temperature there."""
    import pint

    target = _unit(to)
    if target in (_unit("°C"), _unit("°F")) and unit in ("C", "F"):
        unit = f"°{unit}"
    source = _unit(unit)
    if source is None or target is None:
        return None
    try:
        return float(_registry().Quantity(value, source).to(target).magnitude)
    except (pint.PintError, ArithmeticError, ValueError, TypeError):
        return None
