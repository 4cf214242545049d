import pytest

from dpe_api.artifacts import AnswerType
from dpe_jobs.generation.quality.wording import check_languages, fitting, language, readable
from dpe_jobs.runtime import BadConfig


@pytest.mark.parametrize(
    ("question", "trouble"),
    [
        ("   ", "is empty"),
        ("What is <|image_pad|> here?", "template"),
        ("<image> What is this?", "template"),
        ("What is \ufffd\ufffd here?", "U+FFFD"),
        ("What is\u202e here?", "U+202E"),
        ("What is\x00 here?", "U+0000"),
        ("12 + 12 = ?", "no letters"),
        ("the " * 20, "'the' 20 times"),
        ("w" * 5000, "5000 characters"),
    ],
)
def test_a_question_that_nobody_can_read_is_refused_with_what_is_wrong(question, trouble):
    rejection = readable(question)
    assert rejection is not None
    assert rejection.reason == "Unreadable"
    assert trouble in rejection.detail


@pytest.mark.parametrize(
    "question",
    [
        "what color is the shape?",
        "Is 3 < 5 and 7 > 2 in the table?\n",
        "What is the value of x if 2x + 3 = 11?",
        "图中有几个圆？",
        "Is the tag <b> shown in the screenshot?",
        "How many of the jars, the large ones and the small ones, cost more than the jar of honey?",
    ],
)
def test_ordinary_questions_are_readable(question):
    assert readable(question) is None


def test_an_option_with_a_mark_of_the_template_is_refused():
    rejection = readable("Which one?", ["red", "<|im_end|>"])
    assert rejection is not None
    assert "the option" in rejection.detail


@pytest.mark.parametrize(
    ("answer", "kind", "choices", "trouble"),
    [
        ("many", AnswerType.NUMBER, (), "many"),
        ("maybe", AnswerType.YES_NO, (), "neither yes nor no"),
        ("blue", AnswerType.CHOICE, ("red", "green"), ""),
        ("red", AnswerType.CHOICE, ("red",), "1 options"),
        ("red", AnswerType.CHOICE, ("red", "Red "), "the same"),
        ("", AnswerType.EXACT, (), "is empty"),
        ("a" * 2000, AnswerType.EXACT, (), "2000 characters"),
    ],
)
def test_an_answer_that_is_not_what_its_type_says_is_refused(answer, kind, choices, trouble):
    rejection = fitting(answer, kind, choices)
    assert rejection is not None
    assert rejection.reason == "AnswerType"
    assert trouble in rejection.detail


@pytest.mark.parametrize(
    ("answer", "kind", "choices"),
    [
        ("12", AnswerType.NUMBER, ()),
        ("no", AnswerType.YES_NO, ()),
        ("green", AnswerType.CHOICE, ("red", "green")),
        ("B", AnswerType.CHOICE, ("red", "green")),
        ("a long way", AnswerType.JUDGE, ()),
    ],
)
def test_answers_of_their_own_type_pass(answer, kind, choices):
    assert fitting(answer, kind, choices) is None


@pytest.mark.parametrize(
    "question",
    [
        "Welche Farbe hat das Dreieck auf dem Bild oben links?",
        "Quelle est la couleur de la forme sur cette image ?",
        "¿De qué color es la figura grande que está en la imagen?",
        "какой цвет",
        "图中有几个圆？",
    ],
)
def test_a_question_that_is_surely_in_another_language_is_refused(question):
    rejection = language(question, ["en"])
    assert rejection is not None
    assert rejection.reason == "Language"


@pytest.mark.parametrize("question", ["Welche Farbe?", "What is x?", "42", "is there a teal shape in the image?"])
def test_a_short_question_in_the_right_letters_is_left_alone(question):
    assert language(question, ["en"]) is None


def test_every_language_of_the_list_is_allowed():
    assert language("Welche Farbe hat das Dreieck auf dem Bild oben links?", ["en", "de"]) is None
    assert language("図の中に円はいくつありますか", ["ja"]) is None
    assert language("Koje je boje trougao na slici gore levo?", ["sr"]) is None


def test_a_language_that_nobody_knows_is_bad_configuration_and_lists_those_known():
    check_languages(["en", "zh"])
    with pytest.raises(BadConfig, match=r"languages: xx cannot be told.* en,"):
        check_languages(["en", "xx"])
