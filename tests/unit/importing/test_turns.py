import json

import pytest
from tests.unit.importing.sources import png

from dpe_api.artifacts import AnswerType
from dpe_jobs.graders import grade
from dpe_jobs.importing import cli


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]


@pytest.fixture
def write(tmp_path):
    def to(*entries: dict) -> str:
        (tmp_path / "a.png").write_bytes(png())
        path = tmp_path / "a.json"
        path.write_text(json.dumps([{"id": str(n), "image": "a.png", **e} for n, e in enumerate(entries)]))
        return path

    return to


def test_each_turn_is_a_question_about_the_image(bring, published, write):
    source = write({"conversations": talk("<image>\nis it red?", "yes", "how many are there?", "2")})
    report = bring(source, "--category", "mixed")
    assert [(q.id, q.question, q.answer, q.answer_type) for q in published()] == [
        ("0#1", "is it red?", "yes", AnswerType.YES_NO),
        ("0#2", "how many are there?", "2", AnswerType.NUMBER),
    ]
    assert (report.rows, report.questions) == (1, 2)


def test_later_turns_are_left_out_on_request_and_counted(bring, published, write):
    source = write({"conversations": talk("is it red?\n<image>", "yes", "why?", "it glows")})
    report = bring(source, "--category", "mixed", "--first-turn")
    assert [(q.id, q.question) for q in published()] == [("0", "is it red?")]
    assert report.turns_left_out == 1


def test_messages_in_the_form_of_openai_are_conversations_too(bring, published, write):
    parts = [{"type": "image"}, {"type": "text", "text": "is it red?"}]
    source = write({"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "yes"}]})
    bring(source, "--category", "mixed", "--column", "conversations=messages")
    assert [(q.question, q.answer) for q in published()] == [("is it red?", "yes")]


def test_flat_objects_need_no_conversation(bring, published, write):
    source = write({"question": "how many?", "answer": 3}, {"question": "true?", "answer": True})
    bring(source, "--category", "mixed")
    assert [(q.question, q.answer, q.answer_type) for q in published()] == [
        ("how many?", "3", AnswerType.NUMBER),
        ("true?", "yes", AnswerType.YES_NO),
    ]


def test_a_number_keeps_its_digits(bring, published, tmp_path, write):
    source = write({"question": "how much?", "answer": "HERE"})
    source.write_text(source.read_text().replace('"HERE"', "3.10"))
    bring(source, "--category", "mixed")
    assert [q.answer for q in published()] == ["3.10"]


def test_choices_that_the_question_lists_are_its_choices(bring, published, write):
    question = "what color?\nA. red\nB. blue"
    bring(write({"conversations": talk(question, "B")}), "--category", "mixed")
    (found,) = published()
    assert (found.question, found.choices, found.answer) == (question, ("red", "blue"), "blue")
    assert found.answer_type is AnswerType.CHOICE


def test_a_list_is_one_answer_where_all_of_it_counts(bring, published, write):
    source = write({"question": "which colors?", "answer": ["red", "blue"]})
    bring(source, "--category", "mixed", "--answer-type", "list")
    (found,) = published()
    assert grade("blue and red", found.answer, found.answer_type)
    assert not grade("blue", found.answer, found.answer_type)


def test_a_long_answer_is_for_a_judge(bring, published, write):
    answer = "It is red because the light that falls on it is."
    report = bring(write({"question": "why is it red?", "answer": answer}), "--category", "mixed")
    assert [(q.answer, q.answer_type) for q in published()] == [(answer, AnswerType.JUDGE)]
    assert "need an endpoint in spec.diagnosis.judge" in cli.describe(report, None)


def test_an_answer_type_of_the_command_line_rules(bring, published, write):
    source = write({"question": "which number plate?", "answer": "1234567", "answer_type": "number"})
    bring(source, "--category", "mixed", "--answer-type", "exact")
    assert [q.answer_type for q in published()] == [AnswerType.EXACT]


@pytest.mark.parametrize(
    ("answers", "found"),
    [(["red"], "red"), (["red", "red"], "red"), ("['red']", "red"), (["red", "crimson"], None), ([], None)],
)
def test_several_answers_count_only_when_they_agree(bring, published, write, capsys, answers, found):
    source = write({"question": "what color?", "answer": answers})
    if found is None:
        bring(write({"question": "a?", "answer": answers}, {"question": "b?", "answer": "c"}), *("--max-bad", "1"),
              *("--category", "mixed"))  # fmt: skip
        assert f"answer: {len(answers)} different answers" in capsys.readouterr().err
    else:
        bring(source, "--category", "mixed")
        assert [q.answer for q in published()] == [found]
