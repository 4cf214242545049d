r"""Mathematical equality by math-verify, within bounds: what sympy would work on for minutes is no answer.

math-verify bounds its time by SIGALRM, which only a main thread has. Here two bounds hold in any thread: the text is
short and names no tower of powers or huge factorial (so no single operation is long), and the thread's CPU time is
watched (so no number of them is). CPU time, and not the clock's: a busy machine makes no answer wrong.
"""

import ctypes
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache

from dpe_jobs.graders import exact
from dpe_jobs.graders.text import LONGEST_CLAIM, boxes, extract, plain, sentences, spoken, without_lead_in

LONGEST = 600  # characters that are parsed
CPU_S = 3.0  # of the thread that grades, for one answer
_DEEPEST = 12  # nested brackets
_LONGEST_INTEGER = 60  # digits
_LARGEST_POWER = 20_000  # product of all exponents: 10^20000 still takes no time
_LARGEST_OPERAND = 200  # of factorials and binomials
_HEAVY = re.compile(r"!|\\(?:[dt]?binom|Gamma|gamma)|\b(?:factorial|binomial|gamma|zeta)\b")
_NESTED_HEAVY = re.compile(r"[)}!]\s*!|!\s*\)?\s*!")
_PLAIN_POWER = re.compile(r"\d\s*(?:\^|\*\*)\s*[{(]?\s*\d")
_THOUSANDS = re.compile(r"(?<=\d)(?:,\\!|\{,\})\s?(?=\d{3}(?!\d))")
_JOINS = re.compile(r"(?:[\s$,;&]|\\[()\[\],;! ]|\\q?quad|(?:\\(?:text|mathrm)\s*\{)?\s*,?\s*(?:and|or)\b\s*\}?){1,40}")
_EXPONENTIAL, _EXP_OF_EXP = re.compile(r"\\?exp\b|e\s*(?:\^|\*\*)"), re.compile(r"exp\W{0,3}exp")
_DELIMITED, _PROSE = re.compile(r"\$|\\[(\[]"), re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}\s+[A-Za-z]{2,}")
_DIGITS = re.compile(r"\d+")
_WORDS = re.compile(
    r"(?!(?:sin|cos|tan|cot|sec|csc|log|exp|sqrt|inf|infinity)\b)[A-Za-z]{3,}(?:[ '-][A-Za-z]+)*|[\u4e00-\u9fff]+"
)
_LARGEST_BRACKET_POWER = 50  # of a sum that may be multiplied out
_BRACKET_POWER = re.compile(r"[)\]}]\s*(?:\^|\*\*)\s*[{(]?\s*(\d+)")
_OPEN_ENDED = re.compile(r"\\(?:i{0,3}nt|oint|lim|sum|prod)(?![a-z])")  # an answer is a closed form


def _exponents(text: str) -> list[tuple[bool, str]]:
    """What stands behind each ^ and **, a group or a sign, and whether its base ends with a bracket."""
    found = []
    for match in re.finditer(r"(?:\^|\*\*)\s*", text):
        begin, bracket = match.end(), text[: match.start()].rstrip()[-1:] in (")", "}", "]")
        opening = text[begin : begin + 1]
        if opening in ("{", "("):
            closing, depth, end = {"{": "}", "(": ")"}[opening], 0, begin
            for end in range(begin, len(text)):
                depth += {opening: 1, closing: -1}.get(text[end], 0)
                if depth == 0:
                    break
            found.append((bracket, text[begin : end + 1]))
        else:
            token = re.match(r"[-+]?(?:\\?\w+)(?:\s*(?:\^|\*\*)\S*)?", text[begin:])
            found.append((bracket, token[0] if token else ""))
    return found


def tractable(text: str) -> bool:
    """Whether sympy can be let loose on a text: length, depth, sizes of powers and of what grows as factorials do."""
    numbers = _DIGITS.findall(text)
    if len(text) > LONGEST or _OPEN_ENDED.search(text) or any(len(n) > _LONGEST_INTEGER for n in numbers):
        return False
    if any(int(power) > _LARGEST_BRACKET_POWER for power in _BRACKET_POWER.findall(text)):
        return False
    depth = deepest = 0
    for sign in text:
        depth += {"{": 1, "(": 1, "[": 1, "}": -1, ")": -1, "]": -1}.get(sign, 0)
        deepest = max(deepest, depth)
    if deepest > _DEEPEST:
        return False
    single, stacked = 1, 1
    for bracket, exponent in _exponents(text):
        if re.search(r"[\de)}\]]\s*(?:\^|\*\*)", exponent) or _HEAVY.search(exponent) or exponent.count("^") > 1:
            return False  # a tower of numbers; x^{y^2} is none
        size = math.prod(max(1, int(number)) for number in _DIGITS.findall(exponent))
        if bracket:
            stacked *= size
        single = max(single, size)
    if single * stacked > _LARGEST_POWER:
        return False
    if len(_EXPONENTIAL.findall(text)) > 3 or _EXP_OF_EXP.search(text):
        return False
    heavy = _HEAVY.findall(text)
    return not heavy or (
        len(heavy) <= 6
        and not (_NESTED_HEAVY.search(text) or _PLAIN_POWER.search(text))
        and all(int(n) <= _LARGEST_OPERAND for n in numbers)
    )


class _OutOfTime(BaseException):
    """Raised in the thread that grades; not an Exception, for math-verify swallows those."""


def _bounded(work: Callable[[], bool]) -> bool | None:
    """What `work` returns; None when it takes more than CPU_S of this thread's CPU time."""
    thread = threading.get_ident()
    clock = time.pthread_getcpuclockid(thread)
    start = time.clock_gettime(clock)
    # reentrant: what interrupts this thread may do so while it takes the lock
    over, lock = threading.Event(), threading.RLock()
    done = sent = False

    def watch() -> None:
        nonlocal sent
        while not over.wait(0.25):
            if time.clock_gettime(clock) - start > CPU_S:
                with lock:
                    if not done:
                        sent = True  # again each time: sympy may catch it
                        error = ctypes.py_object(_OutOfTime)
                        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)

    def stop() -> None:
        """Nothing more is sent, and what was sent has come.

        It is not called back by setting NULL: Python 3.11 then looks for it at every call for as long as the process
        lives, and a traced call (a debugger's, a profiler's) never begins.
        """
        nonlocal done
        while True:
            try:
                with lock:
                    done = True
                for _ in range(100 if sent else 0):
                    continue  # where a loop jumps back, what was sent is raised
            except _OutOfTime:
                continue
            break
        over.set()

    try:
        try:
            threading.Thread(target=watch, name="maths-watch", daemon=True).start()
            return work()
        finally:
            stop()
    except _OutOfTime:
        stop()  # it may have come between the end of work and the first stop
        return None


def _latex(text: str) -> str:
    """A text in dollars, for the parser; one that has them stays."""
    text = _THOUSANDS.sub("", text.strip()).replace("\\$", "")
    return text if "$" in text or "\\(" in text or "\\[" in text or "\\boxed" in text else f"${text}$"


def _boxed_together(text: str) -> str | None:
    r"""The last boxes, when nothing but `,` and `and` stands between them: `\boxed{1} and \boxed{2}` are two roots."""
    found = boxes(text)
    if len(found) < 2:
        return None
    run = [found[-1]]
    for box in reversed(found[:-1]):
        if not _JOINS.fullmatch(text, box[1], run[0][0]):
            break
        run.insert(0, box)
    return ", ".join(content for _, _, content in run) if len(run) > 1 else None


def _formula(text: str) -> str | None:
    """A text that is one formula without dollars, perhaps after `It is`; None when it is prose, or has dollars."""
    bare = without_lead_in(plain(text)).rstrip(". ")
    if re.fullmatch(r"[-+\d.,%\s]*", bare):
        return None  # the parser knows more ways to write a number outside of dollars
    return None if _DELIMITED.search(bare) or _PROSE.search(bare) or "\n" in bare else bare


def _candidates(response: str) -> Iterator[str]:
    """What of a response may be parsed: what it claims, or else its end, its last line, its last sentence."""
    text, said = extract(response)
    together = _boxed_together(spoken(response)[-LONGEST_CLAIM:])
    if together is not None:
        yield _latex(together)
    elif said:
        yield _latex(plain(text))
    elif formula := _formula(text):
        yield _latex(formula)
    else:
        yield text if len(text) <= LONGEST else text[-LONGEST:].partition(" ")[2]
        yield text.rsplit("\n", 1)[-1]
        yield next(iter(sentences(text)[-1:]), "")


@lru_cache(256)
def _verified(said: str, wanted: str) -> bool:
    from math_verify import parse, verify  # imports sympy: a second that other graders need not pay

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # else it warns that its own timeouts are off

    def work() -> bool:
        gold = parse(_latex(wanted), parsing_timeout=None)
        found = parse(said, parsing_timeout=None) if gold else []
        return bool(gold and found and verify(gold, found, timeout_seconds=None))

    return bool(_bounded(work))


def claim(response: str) -> str | None:
    """The text that a response gives, not simplified."""
    return exact.claim(response)


def grade(response: str, answer: str) -> bool:
    """Equal text needs no parser, and words know no other equality."""
    if exact.grade(response, answer):
        return True
    inside = boxes(answer)
    wanted = _boxed_together(answer) or plain(inside[-1][2] if len(inside) == 1 else answer)
    if _WORDS.fullmatch(wanted) or not tractable(wanted):
        return False
    said = next((c for c in _candidates(response) if c and tractable(c)), None)
    return said is not None and _verified(said, wanted)
