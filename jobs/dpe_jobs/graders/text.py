r"""What a response claims, whatever its dress: thinking, tags, boxes, statements, lead-ins, markdown, LaTeX.

Every pattern here takes time linear in the text, or is anchored, or has bounded repeats: a response is hostile input.
"""

import re
import unicodedata

LONGEST = 20_000  # characters; of a longer response only the end is read, where its answer stands
LONGEST_CLAIM = 4_000  # characters; of a longer claim the first quarter and the end
_SPACES = " \t\r\n"
_EDGES = _SPACES + ",;:!?\"'`*_“”‘’«»「」。，！？：；、"
_STRIPPED = re.compile(rf"\A(?:[{re.escape(_EDGES)}]|\.(?!\d))+|[{re.escape(_EDGES)}.]+\Z")  # ".5" keeps its point

_OPEN, _CLOSE = re.compile(r"<answer\s*>", re.IGNORECASE), re.compile(r"</answer\s*>", re.IGNORECASE)
_THOUGHT = re.compile(r"</think(?:ing)?>|◁/think▷", re.IGNORECASE)
_THINKS = re.compile(r"<think(?:ing)?>|◁think▷", re.IGNORECASE)
_GLM_BOX = re.compile(r"<\|begin_of_box\|>|<\|end_of_box\|>")
_BOX = re.compile(r"\\f?box(?:ed)?\s*\{")
_TOKENS = re.compile(r"<\|[a-z_]{1,30}\|>|</s>")

_STATED = re.compile(
    r"(?:(?:\b(?:correct|right|best|final)\s+(?:option|choice)|\bans(?:wer)?)[*_`]*"
    r"(?:\s+(?:to|for|of)\b[^.\n:=]{1,120}?)?"
    r"(?:[*_` ]{0,8}(?:\bis\b|\bwould be\b|\bshould be\b|\bmust be\b))?"
    r"(?:[*_` ]{0,8}[:=：][*_`\s]{0,8}|(?<=\b(?:is|be))[*_` ]{1,8}|\s?(?=[（(][A-Za-z][)）]))"
    r"|^#{1,6}\s*(?:final\s+)?answer[*_ ]*\n\s*"
    r"|(?:正确答案|正确选项|答案|答)\s*(?:应该)?(?:是|为|选)?\s*[:：]?\s*(?<=[是为选:： ])"
    r"|(?:故选|应选|因此选|所以选|选择|选)\s*[:：]?\s*(?=[(（]?[A-Z]))"
    r"(?=[^\s.!?,;。，])",
    re.IGNORECASE | re.MULTILINE,
)
_JSON = re.compile(
    r"\{[^{}]{0,500}?[\"'](?:final_?)?answer[\"']\s*:\s*(\"[^\"\n]*\"|\[[^\]]*\]|[-\w.]+)", re.IGNORECASE
)
_FINAL = re.compile(r"\bfinal answer\b", re.IGNORECASE)
_HYPOTHESIS = re.compile(r"\b(?:if|whether|unless|assuming|suppose|that)\s+(?:the\s+|my\s+)?\Z", re.IGNORECASE)
_EMPTY_STATEMENT = re.compile(
    r"[*_` ]*(?:not|(?:in)?correct|wrong|as follows|given|shown|below|one of)\b", re.IGNORECASE
)
_OPENER = re.compile(
    r"(?:(?:so|thus|therefore|hence|then|sure|certainly|of course|okay|ok|well|actually|wait|no wait|hmm|oh|overall"
    r"|in conclusion|in total|in summary|altogether|因此|所以)(?:[,!.:，：]+\s*|\s+(?=\w))"
    r"|(?:based on|according to|from|in|on|looking at|as shown in|as seen in)\s+(?:the|this|your)\s[^,.\n]{1,60},\s*"
    r"|(?:yes, )?i(?:\s+would|'d)?\s+(?:think|believe|guess|say|see|go with)\s+(?:that\s+)?"
    r"|(?:i(?:\s+would|'d)?\s+)?(?:choose|select|pick)\s+"
    r"|(?:the\s+)?(?:final\s+|correct\s+)?(?:answer|option|choice)\s*(?:is\b|:|=)\s*"
    r"|(?:probably|likely|most likely|maybe|perhaps|possibly)[, ]\s*)+",
    re.IGNORECASE,
)
_COPULA = re.compile(
    r"(?:(?:it|this|that|there|they|these|those|he|she)\b|(?:the|its|his|her|their)\s[^.,;:!?\n]{1,80}?)"
    r"(?:['’]s|\s+(?:is|are|was|were|must be|shows?|reads?|says?|equals|contains|depicts"
    r"|(?:seems?|appears?|looks)(?:\s+to\s+be|\s+like)?))\s+"
    r"(?:(?:probably|likely|most likely|clearly|called|named|labell?ed|:)\s*)?",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(
    r"[*_ ]*(?:so|thus|therefore|hence|overall|in total|altogether|in conclusion|in summary|因此|所以|综上)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_MARKDOWN = re.compile(r"\*\*([^*\n]+)\*\*|(?<![\w*])\*([^*\n]+)\*(?![\w*])|(?<!\w)__([^_\n]+)__(?!\w)|`([^`\n]+)`")
_STARS = re.compile(r"\A(?:\*(?!\s)|\*{2,}\s*)+|\*+\Z")  # a bullet stays
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|operatorname)\s*\{([^{}]*)\}")
_DOLLARS = re.compile(r"\A\$+([^$]+)\$+\Z")
_ARTICLE = re.compile(r"\A(?:a|an|the)\s+(?=\S)")
_REFUSES = re.compile(
    r"\b(?:i(?:['’]m| am) (?:sorry|unable|not able|not sure)|i (?:can(?:not|['’]t)|don['’]t know|do not know)"
    r"|as an ai|(?:cannot|can['’]t) be determined|not (?:possible|enough information)|无法)",
    re.IGNORECASE,
)


def normalise(text: str) -> str:
    """Unicode NFKC, lower case, single spaces, no punctuation at the ends; empty when there is nothing else."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    while (bare := _STRIPPED.sub("", folded)) != folded:
        folded = bare
    return folded


def plain(text: str) -> str:
    r"""Without the dress inside of a text: `**bold**`, `*italic*`, backticks, `\text{}`, enclosing dollars."""
    for _ in range(3):  # \textbf{\text{..}}
        bare = _MARKDOWN.sub(lambda m: next(g for g in m.groups() if g is not None), _WRAPPED.sub(r"\1", text))
        if bare == text:
            break
        text = bare
    text = _STARS.sub("", text.strip())
    for pair in (("\\(", "\\)"), ("\\[", "\\]")):
        text = text.removeprefix(pair[0]).removesuffix(pair[1])
    return _DOLLARS.sub(r"\1", text.strip()).strip()


def without_article(text: str) -> str:
    """A normalised text without a, an, the in front."""
    return _ARTICLE.sub("", text)


def without_opener(text: str) -> str:
    """A sentence without `So,`, `I think`, `Based on the image,` in front."""
    text = text.strip()
    opened = _OPENER.match(text)
    return text[opened.end() :] if opened else text


def without_lead_in(text: str) -> str:
    """A sentence without an opener, and without `It is`, `The colour of the shape is` in front."""
    text = without_opener(text)
    led = _COPULA.match(text)
    return (text[led.end() :] if led else text).strip()


def sentences(text: str) -> list[str]:
    """Sentences and lines that say something, in order."""
    return [part.strip() for part in _SENTENCE.split(text) if re.search(r"\w", part)]


def concludes(sentence: str) -> bool:
    """Whether a sentence draws a conclusion: so, therefore, in total."""
    return _CONCLUDES.match(sentence) is not None


def refuses(text: str) -> bool:
    """Whether a response says that it gives no answer."""
    return _REFUSES.search(text) is not None


def boxes(text: str) -> list[tuple[int, int, str]]:
    r"""Start, end and content of every `\boxed{...}` whose braces close, but those inside of others."""
    found: list[tuple[int, int, str]] = []
    for match in _BOX.finditer(text):
        if found and match.start() < found[-1][1]:
            continue
        depth = 1
        for position in range(match.end(), min(len(text), match.end() + LONGEST_CLAIM)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                found.append((match.start(), position + 1, text[match.end() : position]))
                break
        else:
            break  # nothing after an open brace is closed outside of it
    return found


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = None
    for match in pattern.finditer(text):
        found = match
    return found


def spoken(response: str) -> str:
    """What follows the thinking; nothing when the thinking has no end."""
    text = response[-LONGEST:]
    if thought := _last(_THOUGHT, text):
        text = text[thought.end() :]
    elif _THINKS.search(text):
        return ""
    return text


def _cut(text: str) -> str:
    """A claim that is short enough to be looked at closely."""
    if len(text) <= LONGEST_CLAIM:
        return text
    head = LONGEST_CLAIM // 4
    return f"{text[:head]}\n{text[-(LONGEST_CLAIM - head) :]}"


def extract(response: str, *, paragraph: bool = False) -> tuple[str, bool]:
    r"""What a response claims, and whether it says so: in <answer>, in \boxed{}, or by `answer is`/`Answer:`.

    The last one of each counts: who corrects himself means the correction. A box is only outdone by a later `final
    answer`. Otherwise it is all of the response. What is said to be the answer ends with its line, or its paragraph.
    """
    text, said = spoken(response), False
    parts = _GLM_BOX.split(text)
    if len(parts) > 1:
        text, said = parts[1 if len(parts) == 2 else len(parts) - 2], True
    text = _TOKENS.sub("", text)
    if opened := _last(_OPEN, text):
        closed = _CLOSE.search(text, opened.end())
        text, said = text[opened.end() : closed.start() if closed else len(text)], True
    if found := _last(_JSON, text):
        text, said = found[1].strip('"'), True
    boxed = boxes(text)
    end = boxed[-1][1] if boxed else 0
    stated = None
    for match in _STATED.finditer(text, end):
        supposed = _HYPOTHESIS.search(text, max(0, match.start() - 24), match.start())
        final = not boxed or _FINAL.search(text, max(0, match.start() - 8), match.end())
        if final and not supposed and not _EMPTY_STATEMENT.match(text, match.end()):
            stated = match.end()
    if stated is not None:
        return _cut(text[stated:].split("\n\n" if paragraph else "\n", 1)[0].strip()), True
    if boxed:
        return plain(_cut(boxed[-1][2])), True
    return _cut(text.strip()), said


def final_answer(response: str) -> str:
    r"""What a response claims: inside <answer> or \boxed{}, after the last `answer is`/`Answer:`, else all of it."""
    return extract(response)[0]
