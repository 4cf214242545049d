"""math-verify's own cases, and why this project grades some of them otherwise. docs/grading.md shows the table."""

import json
from pathlib import Path
from typing import Any

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "math_verify_cases.json").read_text())["cases"]
"""test, gold, pred, expected, and the options of its graders where the case sets any."""

_COMMA = "a reference with a comma is a list (two roots), not a decimal: write 1.22"
_PART = "the reference is a whole solution, not an answer; a probe holds answers"
_OPTION = "asks for an option of math-verify that the project does not set"
_NEWLINE = "the formula has line breaks inside of its dollars; its answer is right all the same"
DIFFERENCES = {
    6: _COMMA,
    31: _NEWLINE,
    32: _NEWLINE,
    66: _PART,
    67: _PART,
    139: _OPTION + " (two digits)",
    145: _OPTION + " (two digits)",
    160: _PART,
    180: _PART,
    192: _OPTION + " (sets equal relations)",
    244: "`for part (a) and` stands between the boxes: only `,` and `and` make several boxes one answer",
    254: "`y_1 = [box] and y_2 = [box]`: names stand between the boxes, so that the last one counts",
    260: _OPTION + " (any variable for any other)",
    266: "sums are not evaluated (bounded time): equal text only",
    270: "1 - 1/e is not 1 + 1/e: the case records a fault of math-verify as expected",
}
"""Reason by place in CASES."""
