"""What holds for any answer: dress does not matter, another answer is not this one, and no response breaks a grader."""

import gc
import os
import string
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dpe_api.artifacts import AnswerType
from dpe_jobs import asking
from dpe_jobs.graders import check, claim, grade, is_programmatic, maths

DRESSES = [
    "{}",
    " {} \n",
    "{}.",
    "**{}**",
    "Answer: {}",
    "**Answer:** {}",
    "The answer is {}.",
    "The answer is **{}**.",
    "Final answer: {}",
    "<answer>{}</answer>",
    "<think>Let me see: it may be 17, or no, or C.</think>\n\n{}",
    "I look at the image. Some things are there.\n\nAnswer: {}",
    "\\boxed{{{}}}",
    "$\\boxed{{{}}}$",
    "<|begin_of_box|>{}<|end_of_box|>",
    "答案是{}",
]
dresses = st.sampled_from(DRESSES)
words = st.text(string.ascii_lowercase, min_size=3, max_size=8).filter(
    lambda w: (
        w not in {"the", "and", "not", "but", "yes", "per", "one", "two", "six", "ten", "for", "was", "out", "has"}
    )
)
options = st.lists(st.lists(words, min_size=1, max_size=3).map(" ".join), min_size=2, max_size=6, unique=True)
numbers = st.one_of(st.integers(-(10**9), 10**9), st.floats(-1e6, 1e6).map(lambda x: round(x, 3)))
KINDS = [
    (AnswerType.EXACT, "teal", ()),
    (AnswerType.CHOICE, "B", ("red", "dark red", "blue")),
    (AnswerType.CHOICE, "red", ("red", "dark red", "blue")),
    (AnswerType.NUMBER, "3", ()),
    (AnswerType.NUMBER, "3 cm", ()),
    (AnswerType.YES_NO, "no", ()),
    (AnswerType.MATHS, "\\frac{1}{2}", ()),
    (AnswerType.LIST, "red, blue", ()),
]


@given(words, dresses)
def test_a_text_is_right_under_every_dress(word, dress):
    assert grade(dress.format(word), word, AnswerType.EXACT)


@given(words, words, dresses)
def test_another_text_is_wrong_under_every_dress(word, other, dress):
    assume(word != other)
    assert not grade(dress.format(other), word, AnswerType.EXACT)


@given(numbers, dresses)
def test_a_number_is_right_under_every_dress(number, dress):
    assert grade(dress.format(number), str(number), AnswerType.NUMBER)


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9), dresses)
@example(12345, 12346, "{}")
def test_another_whole_number_is_wrong_under_every_dress(number, other, dress):
    assume(number != other)
    assert not grade(dress.format(other), str(number), AnswerType.NUMBER)


@given(st.integers(1, 10**6), dresses, st.sampled_from(["cm", "kg", "s", "m/s", "°", "m^2", "percent", "USD"]))
def test_a_quantity_is_right_under_every_dress(number, dress, unit):
    assert grade(dress.format(f"{number} {unit}"), f"{number} {unit}", AnswerType.NUMBER)
    assert grade(dress.format(number), f"{number} {unit}", AnswerType.NUMBER)


@given(st.integers(1, 10**6), dresses)
def test_a_wrong_unit_is_wrong_under_every_dress(number, dress):
    assert not grade(dress.format(f"{number} kg"), f"{number} cm", AnswerType.NUMBER)
    assert not grade(dress.format(f"{number} mm"), f"{number} cm", AnswerType.NUMBER)
    assert grade(dress.format(f"{number * 10} mm"), f"{number} cm", AnswerType.NUMBER)


@given(st.booleans(), dresses)
def test_yes_and_no_under_every_dress(truth, dress):
    said = dress.format("Yes" if truth else "no")
    assert grade(said, "yes" if truth else "no", AnswerType.YES_NO)
    assert not grade(said, "no" if truth else "yes", AnswerType.YES_NO)


@given(st.data(), options, dresses)
def test_an_option_is_right_under_every_dress_and_no_other_is(data, choices, dress):
    right = data.draw(st.integers(0, len(choices) - 1))
    said = data.draw(st.integers(0, len(choices) - 1))
    letter = string.ascii_uppercase[said]
    shown = data.draw(st.sampled_from([letter, f"({letter})", f"{letter}. {choices[said]}", choices[said]]))
    assert grade(dress.format(shown), choices[right], AnswerType.CHOICE, choices) is (right == said)
    assert grade(dress.format(shown), string.ascii_uppercase[right], AnswerType.CHOICE, choices) is (right == said)


@given(st.data(), options)
def test_two_options_are_never_right(data, choices):
    first, second = data.draw(st.permutations(range(len(choices))))[:2]
    letters = string.ascii_uppercase[first], string.ascii_uppercase[second]
    joint = data.draw(st.sampled_from([" or ", " and ", ", ", "/", "\n", " & "]))
    assert not grade(joint.join(letters), letters[0], AnswerType.CHOICE, choices)
    if choices[first] not in choices[second] and choices[second] not in choices[first]:
        assert not grade(f"{choices[first]} or {choices[second]}", letters[0], AnswerType.CHOICE, choices)


@given(st.data(), options, st.integers(0, 1000))
def test_shuffled_options_are_graded_as_shown(data, choices, seed):
    right = data.draw(st.integers(0, len(choices) - 1))
    answer = data.draw(st.sampled_from([string.ascii_uppercase[right], choices[right]]))
    order = asking.order("Which one is it?", choices, seed, "row")
    text = asking.prompt("Which one is it?", choices, AnswerType.CHOICE, order=order)
    reference, shown = asking.graded_as(answer, choices, AnswerType.CHOICE, order)
    lines = text.split("\n")[1:]
    for said, line in enumerate(lines):
        letter, option = line.split(". ", 1)
        assert grade(letter, reference, AnswerType.CHOICE, shown) is (option == choices[right])
        assert grade(line, reference, AnswerType.CHOICE, shown) is (shown[said] == choices[right])


@given(st.data(), st.lists(words, min_size=1, max_size=6, unique=True), dresses)
def test_the_order_of_items_does_not_matter(data, items, dress):
    mixed = data.draw(st.permutations(items))
    joint = data.draw(st.sampled_from([", ", "; ", "、", " and "]))
    assert grade(dress.format(joint.join(mixed)), ", ".join(items), AnswerType.LIST)
    numbered = "\n".join(f"{n}. {item}" for n, item in enumerate(mixed, 1))
    assert grade(numbered, ", ".join(items), AnswerType.LIST)


@given(st.data(), st.lists(words, min_size=2, max_size=6, unique=True))
def test_the_order_of_items_matters_where_the_reference_says_so(data, items):
    mixed = data.draw(st.permutations(items))
    assert grade(", ".join(mixed), "ordered: " + ", ".join(items), AnswerType.LIST) is (mixed == items)


@given(st.lists(words, min_size=1, max_size=6, unique=True), words)
def test_one_item_more_or_less_is_wrong(items, other):
    assume(other not in items)
    assert not grade(", ".join([*items, other]), ", ".join(items), AnswerType.LIST)
    assert not grade(", ".join(items), ", ".join([*items, other]), AnswerType.LIST)


@settings(deadline=None)
@given(st.integers(-999, 999), st.integers(1, 99), st.sampled_from(["\\boxed{{{}}}", "The answer is ${}$.", "{}"]))
def test_a_fraction_is_right_however_it_is_written(top, bottom, dress):
    for written in (f"\\frac{{{top}}}{{{bottom}}}", f"{top}/{bottom}", f"\\dfrac{{{2 * top}}}{{{2 * bottom}}}"):
        assert grade(dress.format(written), f"\\frac{{{top}}}{{{bottom}}}", AnswerType.MATHS)
        assert not grade(dress.format(written), f"\\frac{{{top + 1}}}{{{bottom}}}", AnswerType.MATHS)


FRAGMENTS = [
    *(
        "<answer>",
        "</answer>",
        "<think>",
        "</think>",
        "\\boxed{",
        "{",
        "}",
        "(",
        ")",
        "[",
        "answer is ",
        "Answer: ",
        "the ",
    ),
    *(
        "It is ",
        "A. ",
        "(B) ",
        "**",
        "*",
        "`",
        "1,",
        "1 ",
        "1-",
        "9/9/",
        "no ",
        "yes ",
        "not red ",
        "red ",
        "red, ",
        "$",
    ),
    *("\\frac{1}{2}", "\\text{", "=", "±", "- x\n", "1. x\n", "one ", "hundred ", "and ", "\n", " ", ". ", "? ", "so "),
    *("°", "3 cm ", "square ", "per ", "in ", "\u0301", "𝟛", "½", "答案", "选A", "是", "\x00", "\\", "^", "_", "1e9 "),
    *("10^", '"', "“", "<|", "#", "correct answer ", "3 (", "9" * 50, "!", "%", "K", "\ud800"),
]


@pytest.mark.parametrize(("kind", "answer", "choices"), KINDS)
@given(response=st.one_of(st.text(max_size=200), st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join)))
@settings(deadline=None)
def test_no_response_breaks_a_grader(kind, answer, choices, response):
    assert grade(response, answer, kind, choices) in (True, False)
    assert isinstance(claim(response, kind, choices), str | None)


@pytest.mark.parametrize("kind", [k for k in AnswerType if is_programmatic(k)])
@given(answer=st.text(max_size=60), choices=st.lists(st.text(max_size=10), max_size=4))
@settings(deadline=None)
def test_a_reference_fits_and_is_right_by_itself_or_is_refused(kind, answer, choices):
    try:
        check(answer, kind, choices)
    except ValueError:
        return
    assert grade(answer, answer, kind, choices)


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_a_hundred_thousand_characters_take_a_moment(fragment):
    response = (fragment * (100_000 // len(fragment) + 1))[:100_000]
    start = time.thread_time()
    for kind, answer, choices in KINDS:
        grade(response, answer, kind, choices)
        claim(response, kind, choices)
    assert time.thread_time() - start < 8, "seconds of CPU time, for eight graders and their claims"


HOSTILE = [
    *(
        "9**9**9",
        "9^{9^9}",
        "(((9^99)^99)^99)^99",
        "9^{9999999999}",
        "9^{99999*99999}",
        "9^{9!}",
        "((9!)!)!",
        "99999999!",
    ),
    *(
        "\\exp(\\exp(\\exp(100)))",
        "e^{e^{e^{100}}}",
        "\\binom{10^9}{5^9}",
        "\\sum_{n=1}^{99999999} n^n",
        "(x+y+z+w)^{200}",
    ),
    *("\\int \\frac{\\sin x}{x^5+x+1} dx", "\\lim_{x\\to 0}\\frac{\\sin(x^x)}{x^{x^x}}", "x^{x^{x^{x}}}", "2^{19999}"),
    *("\\sin^{50}(x)\\cos^{50}(x)+\\tan^{50}(x)", "(\\sqrt{2}+\\sqrt{3}+\\sqrt{5}+\\sqrt{7})^{30}", "\\tan(10^{4000})"),
    *("\\begin{pmatrix}a&b&c&d\\\\e&f&g&h\\\\i&j&k&l\\\\m&n&o&p\\end{pmatrix}^{-1}", "{" * 500 + "3" + "}" * 500),
    *("\\frac{1}{" * 200 + "x", "1e999999999", "\\sqrt[99]{99^{99}+1}", "1/(1/(1/0))", "\\gamma(100,3)"),
]


@pytest.mark.parametrize("expression", HOSTILE)
def test_no_expression_occupies_the_maths_grader(expression):
    start = time.thread_time()
    assert not grade(f"\\boxed{{{expression}}}", "x^2+2x+1", AnswerType.MATHS)
    assert time.thread_time() - start < maths.CPU_S + 4, "seconds of CPU time; 4 for importing sympy on a cold start"


@pytest.fixture
def no_callbacks_of_the_collector():
    """Hypothesis times garbage collections by one; an interrupt that falls into it is told as an error of its own."""
    before = gc.callbacks[:]
    gc.callbacks.clear()
    yield
    gc.callbacks[:] = before


@pytest.mark.usefixtures("no_callbacks_of_the_collector")
def test_maths_out_of_time_is_wrong_in_any_thread_and_leaves_the_thread_alive(monkeypatch):
    monkeypatch.setattr(maths, "CPU_S", 0.2)
    monkeypatch.setattr(maths, "tractable", lambda text: True)
    found = []

    def work():
        found.append(grade("\\boxed{(x+y+z+w)^{120}}", "x^2+3x+2", AnswerType.MATHS))
        found.append(sum(range(2_000_000)))  # an interrupt that came late would end this
        monkeypatch.setattr(maths, "CPU_S", 30)  # the first one that is taken apart imports much
        found.append(grade("\\boxed{(x+1)(x+2)}", "x^2+3x+2", AnswerType.MATHS))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert found == [False, 1999999000000, True]


TRACED = """
import sys
from dpe_api.artifacts import AnswerType
from dpe_jobs import graders
from dpe_jobs.graders import maths

def called(): return 7

for limit, hard in ((30, False), (0.2, True)):
    maths.CPU_S = limit
    if hard: maths.tractable = lambda text: True
    graders.grade("\\\\boxed{(x+y+z+w)^{120}}" if hard else "\\\\boxed{(x+1)(x+2)}", "x^2+3x+2", AnswerType.MATHS)
    sys.settrace(lambda *_: None)
    print(called())
    sys.settrace(None)
"""


def test_a_process_that_graded_maths_can_still_be_traced():
    # Python 3.11 begins no traced call in a process that is told of an interrupt which nobody takes
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", TRACED], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (["7", "7"], "")


@pytest.mark.parametrize("response", ["\\boxed{\\frac{2}{4}}", "$0.5$"])
def test_maths_grades_off_the_main_thread(response):
    found = []
    thread = threading.Thread(target=lambda: found.append(grade(response, "\\frac{1}{2}", AnswerType.MATHS)))
    thread.start()
    thread.join(60)
    assert found == [True]
