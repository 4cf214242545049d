from dpe_jobs.diagnosis.confusions import MAX_PER_CATEGORY, MAX_TEXT, count


def pairs(found):
    return [(c.category, c.expected, c.given, c.count) for c in found]


def test_wrong_answers_are_counted_by_category_most_frequent_first():
    found = count(
        ["shape", "color", "color", "color", "color"],
        ["circle", "teal", "red", "teal", "teal"],
        ["triangle", "green", "green", "blue", "green"],
    )
    assert pairs(found) == [
        ("color", "teal", "green", 2),
        ("color", "red", "green", 1),
        ("color", "teal", "blue", 1),
        ("shape", "circle", "triangle", 1),
    ]


def test_an_answer_that_cannot_be_read_is_told_from_one_that_can():
    assert pairs(count(["a", "a"], ["yes", "yes"], [None, "no"])) == [("a", "yes", "", 1), ("a", "yes", "no", 1)]


def test_equal_texts_are_no_confusion():
    assert count(["a"], ["yes"], ["yes"]) == []
    assert count([], [], []) == []


def test_free_form_answers_do_not_make_an_endless_list():
    found = count(["a"] * 1000, ["x" * 10_000] * 1000, [f"{i:04d}" + "y" * 10_000 for i in range(1000)])
    assert len(found) == MAX_PER_CATEGORY
    assert max(len(c.expected + c.given) for c in found) == 2 * MAX_TEXT
