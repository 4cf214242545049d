from dpe_api.artifacts import Confusion, Interval, Slice, Weakness
from dpe_jobs.diagnosis.by_rules import WrongRow, by_rules
from dpe_jobs.diagnosis.confusions import count


def slice_of(category: str | None, accuracy: float, rest: float, **facets: str) -> Slice:
    effect = accuracy - rest
    return Slice(
        category=category,
        facets=facets,
        n=20,
        correct=round(20 * accuracy),
        accuracy=Interval(value=accuracy, low=accuracy - 0.1, high=accuracy + 0.1),
        rest=rest,
        effect=Interval(value=effect, low=effect - 0.1, high=effect + 0.1),
        p_value=0.001,
        q_value=0.01,
    )


WRONG = [
    WrongRow("a", "chart", {"chart_kind": "pie", "size": "small"}, "red", "blue"),
    WrongRow("b", "chart", {"chart_kind": "pie", "size": "large"}, "red", "blue"),
    WrongRow("c", "chart", {"chart_kind": "bar", "size": "small"}, "red", None),
    WrongRow("d", "map", {"chart_kind": "pie"}, "3", "4"),
]
LONG = "x" * 300


def rules(slices: list[Slice], confusions: list[Confusion], most: int = 3) -> list[Weakness]:
    return by_rules(slices, confusions, WRONG, per_category=most)


def test_slices_and_confusions_are_told_in_words_with_their_rows():
    slices = [slice_of("chart", 0.4, 0.85, chart_kind="pie", size="small"), slice_of("chart", 0.5, 0.9)]
    confusions = [Confusion(category="chart", expected="red", given="blue", count=2)]
    assert rules(slices, confusions) == [
        Weakness(
            category="chart",
            text="questions where chart kind is pie and size is small: 40% right, 85% of the others",
            count=1,
            examples=["a"],
        ),
        Weakness(
            category="chart",
            text="the whole category: 50% right, 90% of other categories",
            count=3,
            examples=["a", "b", "c"],
        ),
        Weakness(category="chart", text="answers 'blue' where 'red' is right", count=2, examples=["a", "b"]),
    ]


def test_a_slice_over_all_categories_is_told_where_it_has_wrong_answers():
    told = rules([slice_of(None, 0.3, 0.8, chart_kind="pie")], [])
    assert [(w.category, w.count, w.examples) for w in told] == [("chart", 2, ["a", "b"]), ("map", 1, ["d"])]


def test_the_list_of_a_category_is_short_and_a_single_confusion_is_no_weakness():
    slices = [slice_of("chart", 0.4, 0.8, size="small"), slice_of("chart", 0.4, 0.8, chart_kind="pie")]
    confusions = [Confusion(category="map", expected="3", given="4", count=1)]
    assert [w.examples for w in rules(slices, confusions, most=1)] == [["a", "c"]]


def test_answers_that_cannot_be_read_are_a_weakness():
    rows = [WrongRow(name, "chart", {}, "red", claim) for name, claim in (("a", None), ("b", ""), ("c", "blue"))]
    confused = count(["chart"] * 3, ["red"] * 3, [row.claim for row in rows])
    assert by_rules([], confused, rows, per_category=3) == [
        Weakness(category="chart", text="gives no readable answer where 'red' is right", count=2, examples=["a", "b"])
    ]


def test_long_answers_that_were_confused_twice_are_a_weakness():
    rows = [WrongRow(name, "chart", {}, LONG, f"{LONG}y") for name in "ab"]
    confused = count(["chart"] * 2, [LONG] * 2, [row.claim for row in rows])
    assert [w.examples for w in by_rules([], confused, rows, per_category=3)] == [["a", "b"]]


def test_nothing_wrong_is_no_weakness():
    assert by_rules([slice_of("chart", 0.4, 0.8)], [], [], per_category=3) == []
