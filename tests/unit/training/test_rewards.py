"""What a completion earns."""

import sys
from pathlib import Path

import numpy as np
import pytest

from dpe_api.training_spec import Training
from dpe_jobs.runtime import BadConfig
from dpe_jobs.training.rewards import Custom, answer, exact, has_form, length_penalty, rewards


def said(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "assistant", "content": text}] for text in texts]


def test_a_right_answer_earns_one() -> None:
    found = answer(
        said(" red", "Red.", "blue", "B"),
        answer=["red", "red", "red", "B"],
        answer_type=["exact", "exact", "exact", "choice"],
        choices=[[], [], [], ["teal", "gray"]],
        prompts=[],
    )
    assert found == [1.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("question", "good", "bad"),
    [
        (r"How many? Put your final answer in \boxed{}.", r"so \boxed{3}", "3"),
        ("What is it? Answer in <answer></answer>.", "It is <answer>red</answer>", "red"),
        ("What is it? Answer in <answer></answer>.", "<answer>red</answer>", "<answer>red</answer> or not"),
        ("Think in <think></think>, answer in <answer></answer>.", "<think>a</think><answer>b</answer>", "<answer>b"),
        ("Think in <think></think>, answer in <answer></answer>.", "<think></think><answer>b</answer>", "b"),
        ("Which?\nA. red\nB. blue\nAnswer with the option's letter only.", "(B)", "B. blue"),
        ("Which? Just give the letter.", "A", "The letter is A"),
        ("What colour? Answer in one word.", "red", "It is red"),
        ('What colour? Reply in JSON: {"colour": ...}', '{"colour": "red"}', "colour: red"),
    ],
)
def test_a_form_is_earned_where_the_question_asks_for_it(question: str, good: str, bad: str) -> None:
    assert has_form(question, good)
    assert not has_form(question, bad)


@pytest.mark.parametrize("question", ["what color is the shape?", "A single word or phrase?", "Who sent it?"])
def test_a_question_that_asks_for_no_form_gives_it_to_all(question: str) -> None:
    assert has_form(question, "It is a long story.")


def test_the_length_penalty_grows_over_the_last_tokens() -> None:
    penalty = length_penalty(longest=100, over=20)
    lengths = [1, 80, 85, 90, 100, 120]
    assert penalty(completion_ids=[[0] * n for n in lengths]) == [0, 0, -0.25, -0.5, -1, -1]


def test_only_parts_with_a_weight_are_asked_and_the_answer_always_is() -> None:
    def names(**fields: object) -> list[tuple[str, float]]:
        return [(r.__name__, w) for r, w in rewards(Training.model_validate({"rewards": fields}))]

    assert names() == [("answer", 1.0)]
    assert names(answer=0.9, format=0.1, length_penalty=0.5) == [("answer", 0.9), ("format", 0.1), ("length", 0.5)]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with two rewards, one of which does not load."""
    (tmp_path / "lab_rewards.py").write_text(
        "def brief(completions, question, **_):\n    return [1 / len(c[-1]['content']) for c in completions]\n"
    )
    info = tmp_path / "lab_rewards-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-rewards\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dpe.rewards]\nbrief = lab_rewards:brief\nbroken = lab_rewards:nothing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lab_rewards", raising=False)


def custom(name: str) -> Training:
    return Training.model_validate({"rewards": {"custom": [{"name": name, "weight": 2}]}})


@pytest.mark.usefixtures("installed")
def test_a_reward_of_a_users_package_is_found_by_its_entry_point() -> None:
    _, (reward, weight) = rewards(custom("brief"))
    assert (reward.__name__, weight) == ("brief", 2)
    assert reward(completions=said("ab", "abcd"), question=["?", "?"], prompts=[]) == [0.5, 0.25]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("name", "words"), [("breif", "there are: brief, broken"), ("broken", "does not load")])
def test_a_reward_that_is_not_there_is_bad_configuration(name: str, words: str) -> None:
    with pytest.raises(BadConfig, match=words) as caught:
        rewards(custom(name))
    assert caught.value.reason == "UnknownReward"


@pytest.mark.parametrize("name", ["answer", "format", "length"])
def test_a_users_reward_with_the_name_of_one_of_ours_is_refused(name: str) -> None:
    with pytest.raises(BadConfig, match=f"custom: {name} is a part that the system has"):
        rewards(custom(name))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda completions: 1 / 0, "lab raised ZeroDivisionError"),
        (lambda completions: [1.0], "must return a list of 2 numbers"),
        (lambda completions: [0.5, float("nan")], "returned nan"),
        (lambda completions: [0.5, "much"], "returned 'much'"),
    ],
)
def test_an_error_of_a_users_reward_names_it(call: object, words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        Custom("lab", call)(said("a", "b"))  # type: ignore[arg-type]


def test_a_users_reward_may_have_nothing_to_say() -> None:
    assert Custom("lab", lambda completions: [None, 1])(said("a", "b")) == [None, 1.0]


@pytest.mark.parametrize(
    "weights", [(1.0, 0.2), (0.9, 0.1), (1.0, 0.1, -0.5), (100.0, 99.9, 33.3), (0.003,), (0.0, 0.7)]
)
def test_the_mean_of_equal_rewards_is_that_reward_in_float32(weights: tuple[float, ...]) -> None:
    rounded = exact(weights)
    assert rounded == pytest.approx(weights, abs=4e-6 * sum(map(abs, weights)))
    reward = np.array(rounded, np.float32).sum()
    for rollouts in range(2, 65):
        total = np.add.accumulate(np.full(rollouts, reward))[-1]
        assert total / np.float32(rollouts) == reward
