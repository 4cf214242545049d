from typing import Any

import pytest
from examples.shapes import recompute


def item(key: str, correct: bool | None, category: str = "color", **more: Any) -> dict[str, Any]:
    return {
        "set": "test",
        "id": key,
        "category": category,
        "answer": "red",
        "answer_type": "exact",
        "choices": None,
        "response": None if correct is None else "red" if correct else "blue",
        "correct": correct,
        "rollouts": None,
        "rollouts_correct": None,
        **more,
    }


def test_a_row_without_an_answer_is_neither_right_nor_wrong() -> None:
    assert recompute.accuracies([item("a", True), item("b", False), item("c", None)]) == {"color": (1, 2)}


def test_changes_are_counted_on_the_items_that_both_models_answered() -> None:
    before = {i["id"]: i for i in (item("a", False), item("b", True), item("c", True), item("d", None))}
    after = {i["id"]: i for i in (item("a", True), item("b", True), item("c", None), item("d", True))}
    assert recompute.changes(before, after) == {"color": recompute.Change(2, 0.5, 1.0)}


def test_macro_accuracy_weighs_categories_alike_whatever_their_size() -> None:
    assert recompute.macro([1.0, 0.0, 0.5]) == pytest.approx(0.5)


def test_a_stored_grade_that_its_response_does_not_deserve_is_found() -> None:
    good = item("a", True, rollouts=["Red.", "blue"], rollouts_correct=[True, False])
    greedy = item("b", True, response="blue")
    sampled = item("c", True, rollouts=["blue"], rollouts_correct=[True])
    assert recompute.misgraded([good, greedy, sampled, item("d", None)]) == ["b", "c"]


def test_only_the_rows_of_one_set_are_taken() -> None:
    assert list(recompute.of_set([item("a", True), item("b", True, set="probe")], "probe")) == ["b"]
