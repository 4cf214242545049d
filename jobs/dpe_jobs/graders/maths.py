r"""Mathematical equality by math-verify, within bounds: what sympy would work on for minutes is no answer.

math-verify bounds its time by SIGALRM, which only a main thread has. Here two bounds hold in any thread: the text is
short and names no tower of powers or huge factorial (so no single operation is long), and the thread's CPU time is
watched (so no number of them is). CPU time, and not the clock's: a busy machine makes no answer wrong.
"""

import ctypes
import logging
import re
import threading
import time
from collections.abc import Callable
from functools import lru_cache

from dpe_jobs.graders import exact
from dpe_jobs.graders.text import extract, plain

LONGEST = 600  # characters that are parsed
CPU_S = 5.0  # of the thread that grades, for one answer
_DEEPEST = 12  # nested brackets
_LONGEST_INTEGER = 60  # digits
_LARGEST_POWER = 20_000  # product of all exponents: 10^20000 still takes no time
_LARGEST_OPERAND = 200  # of factorials, binomials, sums, products, limits, integrals
_HEAVY = re.compile(r"!|\\(?:binom|sum|prod|i*nt|oint|lim|Gamma|gamma)|\b(?:factorial|binomial|gamma|zeta)\b")
_NESTED_HEAVY = re.compile(r"[)}!]\s*!|!\s*\)?\s*!")
_DIGITS = re.compile(r"\d+")
_WORDS = re.compile(r"[A-Za-z\u4e00-\u9fff][A-Za-z\u4e00-\u9fff' -]{2,}")


def _exponents(text: str) -> list[str]:
    """What stands behind each ^ and **: a group in brackets, or the signs up to the next operator."""
    found = []
    for match in re.finditer(r"(?:\^|\*\*)\s*", text):
        begin = match.end()
        opening = text[begin : begin + 1]
        if opening in ("{", "("):
            closing, depth, end = {"{": "}", "(": ")"}[opening], 0, begin
            for end in range(begin, len(text)):
                depth += {opening: 1, closing: -1}.get(text[end], 0)
                if depth == 0:
                    break
            found.append(text[begin : end + 1])
        else:
            token = re.match(r"[-+]?(?:\\?\w+)(?:\s*(?:\^|\*\*)\S*)?", text[begin:])
            found.append(token[0] if token else "")
    return found


def tractable(text: str) -> bool:
    """Whether sympy can be let loose on a text: length, depth, sizes of powers and of what grows as factorials do."""
    if len(text) > LONGEST:
        return False
    depth = deepest = 0
    for sign in text:
        depth += {"{": 1, "(": 1, "[": 1, "}": -1, ")": -1, "]": -1}.get(sign, 0)
        deepest = max(deepest, depth)
    numbers = _DIGITS.findall(text)
    if deepest > _DEEPEST or any(len(n) > _LONGEST_INTEGER for n in numbers):
        return False
    power = 1
    for exponent in _exponents(text):
        if re.search(r"[\de)}\]]\s*(?:\^|\*\*)", exponent) or _HEAVY.search(exponent) or exponent.count("^") > 1:
            return False  # a tower of numbers; x^{y^2} is none
        for number in _DIGITS.findall(exponent):
            power *= max(1, int(number))
    if (
        power > _LARGEST_POWER
        or len(re.findall(r"\\?exp\b|e\s*(?:\^|\*\*)", text)) > 3
        or re.search(r"\\?exp\W{0,3}\\?exp", text)
    ):
        return False
    heavy = _HEAVY.findall(text)
    return not heavy or (
        len(heavy) <= 6 and not _NESTED_HEAVY.search(text) and all(int(n) <= _LARGEST_OPERAND for n in numbers)
    )


class _OutOfTime(BaseException):
    """Raised in the thread that grades; not an Exception, for math-verify swallows those."""


def _bounded(work: Callable[[], bool]) -> bool | None:
    """What `work` returns; None when it takes more than CPU_S of this thread's CPU time."""
    thread = threading.get_ident()
    clock = time.pthread_getcpuclockid(thread)
    start = time.clock_gettime(clock)
    done = threading.Event()
    lock = threading.Lock()

    def watch() -> None:
        while not done.wait(0.5):
            if time.clock_gettime(clock) - start > CPU_S:
                with lock:
                    if not done.is_set():
                        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_OutOfTime))
                        return

    watcher = threading.Thread(target=watch, name="maths-watch", daemon=True)
    try:
        watcher.start()
        return work()
    except _OutOfTime:
        return None
    finally:
        with lock:
            done.set()


def _latex(text: str) -> str:
    """A text in dollars, for the parser; one that has them stays."""
    text = text.strip()
    return text if "$" in text or "\\(" in text or "\\[" in text or "\\boxed" in text else f"${text}$"


def _candidate(response: str) -> str:
    """What of a response is parsed: what it claims, or else the end of it, from the start of a line."""
    text, said = extract(response)
    if said:
        return _latex(plain(text))
    if len(text) > LONGEST:
        text = text[-LONGEST:].partition("\n")[2] or text[-LONGEST:].partition(" ")[2]
    return text


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
    wanted, said = plain(answer), _candidate(response)
    if not said or _WORDS.fullmatch(wanted) or not (tractable(wanted) and tractable(said)):
        return False
    return _verified(said, wanted)
