"""How far this project's graders and public ones agree, as Markdown: the tables of docs/grading.md.

    pip download --no-deps -d wheels lmms-eval==0.7.3 nvidia-vlmeval==26.3
    for wheel in wheels/*.whl; do python -m zipfile -e $wheel public; done
    python -m tests.bench.grading.agreement public

The public graders are read from the unpacked folder and never copied: only the named functions are run, without their
packages, whose dependencies are many gigabytes. The answers are those of tests/unit/graders/styles.py.
"""

import ast
import math
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from tests.unit.graders import styles
from tests.unit.graders.public import CASES, DIFFERENCES

from dpe_api.artifacts import AnswerType
from dpe_jobs.graders import choice, grade

_STDLIB = {"re", "os", "string", "random", "copy", "collections", "numpy"}


def pick(path: Path, *names: str) -> dict[str, Any]:
    """The named functions and classes of a file, with what it imports of the standard library and numpy."""

    def is_wanted(node: ast.stmt) -> bool:
        if isinstance(node, ast.Import):
            return all(a.name in _STDLIB for a in node.names)
        if isinstance(node, ast.ImportFrom):
            return node.module in _STDLIB
        return isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names

    wanted = [node for node in ast.parse(path.read_text()).body if is_wanted(node)]
    module: dict[str, Any] = {}
    exec(compile(ast.Module(wanted, []), str(path), "exec"), module)
    missing = set(names) - module.keys()
    if missing:
        raise SystemExit(f"{path} has no {', '.join(sorted(missing))}: unpack the versions that the docstring names")
    return module


@dataclass(frozen=True, slots=True)
class Public:
    """A public grader as a function of options, reference and response."""

    name: str
    kind: AnswerType
    grade: Callable[[Sequence[str], str, str], bool]


def _letters(choices: Sequence[str]) -> dict[str, str]:
    return dict(zip(ascii_uppercase, choices, strict=False))


def public_graders(folder: Path) -> Iterator[Public]:
    """Those that a function alone makes, of the packages unpacked in a folder."""
    tasks = folder / "lmms_eval" / "tasks"
    vqa = pick(tasks / "_task_utils" / "vqa_eval_metric.py", "EvalAIAnswerProcessor")["EvalAIAnswerProcessor"]()
    yield Public("VQA accuracy's normaliser (lmms-eval)", AnswerType.EXACT, lambda _, a, r: vqa(r) == vqa(a))

    mmmu = pick(tasks / "_task_utils" / "mmmu_mcq_utils.py", "parse_mmmu_multi_choice_response")
    parse = mmmu["parse_mmmu_multi_choice_response"]

    def by_mmmu(choices: Sequence[str], answer: str, response: str) -> bool:
        letters = _letters(choices)
        # what names no option gets a random one there: here it counts as wrong, as it is most of the time
        drawn = {parse(response, list(letters), letters) for _ in range(20)}
        return drawn == {ascii_uppercase[choice.reference(answer, choices)]}

    yield Public("MMMU (lmms-eval)", AnswerType.CHOICE, by_mmmu)

    util = folder / "vlmeval" / "utils" / "matching_util.py"
    infer = pick(util, "can_infer", "can_infer_option", "can_infer_text")["can_infer"]

    def by_vlmevalkit(choices: Sequence[str], answer: str, response: str) -> bool:
        return bool(infer(response, _letters(choices)) == ascii_uppercase[choice.reference(answer, choices)])

    yield Public("can_infer (VLMEvalKit)", AnswerType.CHOICE, by_vlmevalkit)

    relaxed = pick(tasks / "chartqa" / "utils.py", "relaxed_correctness")["relaxed_correctness"]
    yield Public("ChartQA, relaxed (lmms-eval)", AnswerType.NUMBER, lambda _, a, r: relaxed(r, a))

    mme = pick(tasks / "mme" / "utils.py", "parse_pred_ans")["parse_pred_ans"]
    yield Public("MME (lmms-eval)", AnswerType.YES_NO, lambda _, a, r: mme(r) == mme(a))

    words = pick(folder / "vlmeval" / "smp" / "misc.py", "process_punctuation")
    yorn = pick(folder / "vlmeval" / "dataset" / "utils" / "yorn.py", "YOrN_Extraction")["YOrN_Extraction"]
    yorn.__globals__.update(words)
    yield Public("YOrN_Extraction (VLMEvalKit)", AnswerType.YES_NO, lambda _, a, r: yorn(r) == yorn(a))


def rows(kind: AnswerType) -> list[tuple[Sequence[str], str, str, bool]]:
    """Options, reference, response and truth of the table of a kind."""
    tables = {AnswerType.EXACT: styles.EXACT, AnswerType.NUMBER: styles.NUMBER, AnswerType.YES_NO: styles.YES_NO}
    own = styles.CHOICE if kind is AnswerType.CHOICE else [((), *row) for row in tables[kind]]
    return [*own, *(row[1:] for row in styles.FRESH if row[0] is kind)]


def _shown(text: str) -> str:
    short = text if len(text) <= 60 else text[:57] + "..."
    return "`" + short.replace("\n", "⏎").replace("|", "\\|").replace("`", "'") + "`"


def _compare(grader: Public) -> tuple[str, list[str]]:
    agreed = lenient = strict = 0
    examples = []
    table = rows(grader.kind)
    for choices, answer, response, truth in table:
        assert grade(response, answer, grader.kind, choices) is truth
        theirs = grader.grade(choices, answer, response)
        agreed += theirs == truth
        lenient += theirs and not truth
        strict += truth and not theirs
        if theirs != truth:
            examples.append(
                f"| {grader.name} | {_shown(answer)} | {_shown(response)} | {'right' if theirs else 'wrong'} |"
            )
    share = math.floor(100 * agreed / len(table))
    return f"| {grader.name} | {grader.kind} | {len(table)} | {agreed} ({share}%) | {lenient} | {strict} |", examples


def main() -> None:
    """Print the tables; with `--all`, every difference."""
    folder = Path(sys.argv[1])
    random.seed(0)
    wrong = [i for i, c in enumerate(CASES) if grade(c["pred"], c["gold"], AnswerType.MATHS) is not c["expected"]]
    assert wrong == sorted(DIFFERENCES), "tests/unit/graders/public.py explains other differences"
    print(f"math-verify's own cases: {len(CASES) - len(wrong)} of {len(CASES)} agree.\n")
    print("| reference | response | expected there | why not here |\n|---|---|---|---|")
    for i in wrong:
        case = CASES[i]
        expected = "right" if case["expected"] else "wrong"
        print(f"| {_shown(case['gold'])} | {_shown(case['pred'])} | {expected} | {DIFFERENCES[i]} |")
    print("\n| public grader | kind | cases | agree | right only there | right only here |\n|---|---|---|---|---|---|")
    found = [_compare(grader) for grader in public_graders(folder)]
    print("\n".join(line for line, _ in found))
    if "--all" in sys.argv:
        print("\n| public grader | reference | response | there |\n|---|---|---|---|")
        print("\n".join(example for _, examples in found for example in examples))


if __name__ == "__main__":
    main()
