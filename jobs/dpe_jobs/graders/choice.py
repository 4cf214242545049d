"""Multiple choice: which option a response names, by its text or by its letter."""

import re
from collections.abc import Sequence
from string import ascii_uppercase

from dpe_jobs.graders import exact, yes_no
from dpe_jobs.graders.text import concludes, extract, normalise, plain, sentences, without_article, without_lead_in
from dpe_jobs.graders.words import SPELLED, digits_of

_MARK = r"[(\[（【<]?\s?(?:option\s+|choice\s+|选项\s*)?[(\[（【]?([A-Z])[)\]）】>]?"
_LETTER = re.compile(rf"\A{_MARK}\s*(?:[.):：、．,;，。]|\Z|[-–—]\s)", re.IGNORECASE)
_LETTER_TALKS = re.compile(rf"\A{_MARK}(?=[\s,]|\Z)")  # "B because", upper case only
_AFTER_LETTER = re.compile(r"\s+(?:because|since|as|for|due|based|which|with|but|not|given|[(\[-])|\s*[,;]|\s*\Z")
_SEVERAL = re.compile(
    rf"\A(?:both\s+)?{_MARK}\s*(?:,|/|&|and\b|or\b|和|或|(?=[(\[]))\s*(?:and\s+|or\s+)?[(\[]?([A-Z])\b[)\]]?(?!['’])"
)
_CALLED_RIGHT = re.compile(
    r"(?:option|choice|answer)?\s*[(\[]?\b([A-Z])\b[)\].]?[^.;\n]{0,80}?\s(?:is|seems|appears)\s+(?:to be\s+)?"
    r"(?:the\s+)?(?:most\s+)?(?:correct|right|best|accurate)\b(?!\s+(?:of|side|hand))"
)
_WRONG = re.compile(r"\b(?:is|are|was|were)\s+(?:wrong|incorrect|not)\b", re.IGNORECASE)
_POINTED = re.compile(r"[(\[（【]([A-Z])[)\]）】]|\b(?:[Oo]ption|[Cc]hoice|OPTION)\s+[(\[]?([A-Z])\b|选项?\s*([A-Z])")
_DENIES = re.compile(
    r"(?:\b(?:not|nor|neither|never|no|without|except|unlike|instead of|rather than|than)|n['’]t)\s+"
    r"(?:(?:be|a|an|the|option|in|on|to|of|like|as)\s+){0,3}[(\[\"'“‘]?\Z",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"\A[)\]\"'”’.]?\s+(?:is|was|are|were|can)(?:\s+(?:not|incorrect|wrong|ruled out)|n['’]t)\b", re.IGNORECASE
)

MOST_CHOICES = len(ascii_uppercase)


class Options:
    """The options of one question, and how texts name them."""

    def __init__(self, choices: Sequence[str]) -> None:
        """ValueError when two options are alike, or there are more than letters for them."""
        if len(choices) > MOST_CHOICES:
            raise ValueError(
                f"{len(choices)} choices, but only {MOST_CHOICES} have a letter: leave some out, or ask without "
                "choices with answer_type exact"
            )
        for self._fold in (exact.fold, normalise, str.strip):
            self._texts = [self._fold(c) for c in choices]
            if len(set(self._texts)) == len(choices) and all(self._texts):
                break
        else:
            raise ValueError(f"choices {list(choices)} are alike, or empty")
        self._letters = ascii_uppercase[: len(choices)]
        longest_first = sorted(self._texts, key=len, reverse=True)
        self._named = re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, longest_first))})(?!\w|\.\d)")

    def place(self, letter: str) -> int | None:
        """The option that has a letter."""
        place = self._letters.find(letter.upper())
        return None if place < 0 else place

    def by_text(self, text: str) -> int | None:
        """The option that a text is."""
        folded = self._fold(text)
        return self._texts.index(folded) if folded in self._texts else None

    def by_letter(self, text: str) -> int | None:
        """The option whose letter a text starts with; None also when its own words are those of another option."""
        text = text.strip(" \t\r\n\"'`*_.,:“”‘’")
        several = _SEVERAL.match(text)
        if several and several[2] != several[1] and several[2] in self._letters:
            return None
        mark = _LETTER.match(text)
        if mark is None:
            mark = _LETTER_TALKS.match(text)
            if mark is None:
                return None
            if not _AFTER_LETTER.match(text, mark.end()) and self.by_text(text[mark.end() :]) is None:
                return None  # "A blue one", "C is too light"
        if _WRONG.search(text, mark.end()):
            return None  # "A: cat is wrong"
        place = self.place(mark[1])
        also = next(iter(sentences(text[mark.end() :])), "")
        other = self.by_text(also) if also else None
        return None if other is not None and other != place else place

    def one(self, text: str) -> int | None:
        """The option that a short text is: by its words first, then by its letter."""
        bare = plain(text)
        for reading in (bare, without_lead_in(bare)):
            for place in (self.by_text(reading), self.by_letter(reading)):
                if place is not None:
                    return place
        return self._starts(without_lead_in(bare)) if without_lead_in(bare) != bare else None

    def _starts(self, text: str) -> int | None:
        """`The animal is a cat, because it is smaller than the dog.`"""
        head = re.split(r"[,;:(]|\b(?:because|since|as|which|with|while|but|not|due)\b", text, maxsplit=1)[0]
        return self.by_text(head)

    def named(self, text: str) -> set[int]:
        """Options that a text names and does not deny. `dark red` names that option, not also `red`."""
        folded = normalise(plain(text))
        if all(t.isdecimal() for t in self._texts):
            folded = SPELLED.sub(lambda m: m[0] if m[0] == "one" else digits_of(m[0]), folded)
        return {
            self._texts.index(m[0])
            for m in self._named.finditer(folded)
            if not _DENIES.search(folded, max(0, m.start() - 40), m.start())
            and not _DENIED_AFTER.match(folded[m.end() : m.end() + 30])
        }

    def pointed(self, text: str) -> set[int]:
        """Options whose letters a text marks as such, and does not deny: (B), option B."""
        bare = plain(text)
        found = set()
        for mark in _POINTED.finditer(bare):
            place = self.place(mark[1] or mark[2] or mark[3])
            denied = _DENIES.search(bare, max(0, mark.start() - 40), mark.start())
            if place is not None and not denied and not _DENIED_AFTER.match(bare[mark.end() : mark.end() + 30]):
                found.add(place)
        return found

    def without_list(self, text: str) -> str:
        """A text without a restated list of all options."""
        lines = text.split("\n")
        places = []
        for line in lines:
            mark = _LETTER.match(plain(line).lstrip("-*• "))
            rest = plain(line).lstrip("-*• ")[mark.end() :] if mark else ""
            place = self.place(mark[1]) if mark else None
            places.append(place if place is not None and self._fold(rest) == self._texts[place] else None)
        if set(places) - {None} != set(range(len(self._texts))) or len(self._texts) < 2:
            return text
        first, last = 0, len(lines)
        for start in range(len(lines)):
            if places[start : start + len(self._texts)] == list(range(len(self._texts))):
                first, last = start, start + len(self._texts)
        return "\n".join(lines[last:]) if last < len(lines) or first == 0 else "\n".join(lines[:first])


def _only(found: set[int]) -> int | None:
    return next(iter(found)) if len(found) == 1 else None


def index(response: str, choices: Sequence[str]) -> int | None:
    """Which option a response names; None when it names none or several."""
    options = Options(choices)
    text = options.without_list(extract(response)[0])
    if (place := options.by_text(plain(text))) is not None:
        return place
    parts = sentences(text)
    sure = {place for part in parts if (place := options.one(part)) is not None}
    if sure:
        return _only(sure)
    called = {place for m in _CALLED_RIGHT.finditer(plain(text)) if (place := options.place(m[1])) is not None}
    if called:
        return _only(called)
    sides = yes_no.options(choices)
    if sides and (said := yes_no.outright(text)) is not None:
        return sides[said]
    for part in reversed(parts):
        if concludes(part) and (place := _only(options.pointed(part) or options.named(part))) is not None:
            return place
    pointed = options.pointed(text)
    place = _only(pointed or options.named(text))
    # `there is no lamp` may speak of the picture: it says which option only where nothing else does
    if place is None and not pointed and sides and (said := yes_no.polarity(text)) is not None:
        return sides[said]
    return place


def reference(answer: str, choices: Sequence[str]) -> int:
    """Which option the reference is: its text first, then its letter. ValueError when it is none."""
    options = Options(choices)
    place = options.by_text(answer)
    place = options.by_letter(answer) if place is None else place
    if place is None:
        raise ValueError(f"answer {answer!r} is none of the choices {list(choices)}")
    return place


def claim(response: str, choices: Sequence[str]) -> str | None:
    """The text of the option that a response names."""
    if not choices:
        return exact.claim(response)
    place = index(response, choices)
    return None if place is None else without_article(normalise(choices[place]))


def grade(response: str, answer: str, choices: Sequence[str]) -> bool:
    """Without options, an exact answer."""
    if not choices:
        return exact.grade(response, answer)
    wanted = reference(answer, choices)
    return index(response, choices) == wanted
