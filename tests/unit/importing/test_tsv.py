import base64
import csv
import io
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.importing.sources import png, write_tsv

from dpe_jobs.importing import tsv
from dpe_jobs.importing.rows import Fault
from dpe_jobs.runtime import BadConfig, BadData

PNG = base64.b64encode(png()).decode()
HEADER = ["index", "question", "answer"]

# csv.writer of Python 3.11 leaves a carriage return unquoted, and then it ends the line for every reader
texts = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=20)
tables = st.lists(st.lists(texts, min_size=3, max_size=3), max_size=8)


def read(text: bytes) -> list[tsv.Row]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.tsv"
        path.write_bytes(text)
        return list(tsv.rows(path, "a.tsv"))


def written(table: list[list[str]], quoting: int = csv.QUOTE_MINIMAL) -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter="\t", lineterminator="\n", quoting=quoting).writerows([HEADER, *table])
    return out.getvalue().encode()


@given(tables, st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_any_table_is_read_as_it_was_written(table, quoting):
    # a cell that holds line ends and as many tabs as a row looks like a quote that was opened and not closed
    table = [row for row in table if not tsv._swallowed(row, 3)]
    found = read(written(table, quoting))
    assert [r.fault for r in found] == [None] * len(table)
    assert [list(r.cells.values()) for r in found] == table
    assert [r.number for r in found] == list(range(len(table)))


@given(tables, st.binary(max_size=200))
def test_garbage_raises_nothing_and_ends(table, garbage):
    found = read(written(table) + garbage)
    assert all((r.fault is None) == (set(r.cells) == set(HEADER)) for r in found)


plain = st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=8)


@given(st.lists(plain, min_size=2, max_size=30, unique=True), st.data())
def test_a_stray_quote_costs_its_own_row_only(words, data):
    """However many quotes are opened and never closed, in whatever column, the other rows are read."""
    table = [[word, f"is it {word}?", "yes"] for word in words]
    stray = data.draw(st.dictionaries(st.integers(0, len(words) - 1), st.integers(0, 2), max_size=len(words)))
    for row, column in stray.items():
        table[row][column] = '"' + table[row][column]
    found = read(("\n".join("\t".join(row) for row in [HEADER, *table]) + "\n").encode())
    assert [r.number for r in found if r.fault is not None] == sorted(stray)
    assert [r.cells["index"] for r in found if r.fault is None] == [w for n, w in enumerate(words) if n not in stray]
    assert [r.place for r in found] == [f"a.tsv line {n + 2}" for n in range(len(words))]


def test_line_ends_of_windows_and_a_byte_order_mark_are_none_of_the_content():
    (row,) = read(b'\xef\xbb\xbfindex\tquestion\r\n1\t"is\r\nit?"\r\n')
    assert row.cells == {"index": "1", "question": "is\r\nit?"}


def test_a_carriage_return_inside_of_a_line_is_a_bad_row():
    first, second = read(b"index\tquestion\n1\tis\rit\n2\tis it\n")
    assert first.fault == Fault("row", "not tab-separated: a carriage return that ends no line")
    assert second.cells["index"] == "2"


def test_a_line_with_a_quote_never_closed_says_so():
    first, second = read(b'index\tquestion\n1\t"is it\n2\tis it\n')
    assert first.fault is not None
    assert first.fault.reason.startswith("a quote is opened and not closed before line 3")
    assert second.cells["index"] == "2"


def rows_with_references(images: list[str]) -> list[dict[str, str]]:
    return [
        {"index": str(n), "image": image, "question": "is it red?", "answer": "Yes", "category": "color"}
        for n, image in enumerate(images)
    ]


def test_a_cell_may_name_the_row_that_has_the_image_before_or_behind(bring, published, tmp_path):
    blue = base64.b64encode(png("blue")).decode()
    bring(write_tsv(rows_with_references(["3", PNG, "1", blue, "3"]), tmp_path / "a.tsv"))
    assert [q.image for q in published()] == [png("blue"), png(), png(), png("blue"), png("blue")]


def test_a_reference_to_a_reference_or_to_itself_is_a_bad_row(bring, tmp_path, capsys):
    with pytest.raises(BadData, match="2 of 4 rows are bad"):
        bring(write_tsv(rows_with_references(["1", "2", PNG, "3"]), tmp_path / "a.tsv"))
    told = capsys.readouterr().err
    assert "row 0 (a.tsv line 2), image: refers to row 1, which has no image of its own" in told
    assert "row 3 (a.tsv line 5), image: refers to row 3, which has no image of its own" in told


def test_images_may_lie_beside_the_file(bring, published, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png())
    rows = [{"index": "1", "image_path": "a.png", "question": "is it red?", "answer": "Yes", "category": "color"}]
    bring(write_tsv(rows, tmp_path / "a.tsv"), "--images", str(tmp_path / "images"))
    assert [q.image for q in published()] == [png()]


def test_hint_and_coarse_category_are_kept(bring, published, tmp_path):
    row = {"index": "1", "image": PNG, "hint": "Look at it.", "question": "red?", "A": "yes", "B": "no", "C": "nan"}
    rows = [row | {"answer": "A", "category": "hue", "l2-category": "perception"}]
    rows.append(row | {"index": "2", "hint": "nan", "answer": "B", "category": "hue", "l2-category": ""})
    path = write_tsv(rows, tmp_path / "a.tsv")
    bring(path)
    first, second = published()
    assert (first.question, first.choices, first.answer) == ("Hint: Look at it.\nred?", ("yes", "no"), "yes")
    assert (first.category, first.facets) == ("hue", {"l2-category": "perception"})
    assert (second.question, second.answer, second.facets) == ("red?", "no", {})
    bring(path, "--column", "category=l2-category", "--to", "s3://dpe/data/coarse", "--max-bad", "1")
    assert [(q.category, q.facets) for q in published("s3://dpe/data/coarse")] == [("perception", {})]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"index\tquestion\tindex\n", "names the column 'index' twice"),
        (b'"index\tquestion\n', "has no header"),
        (b"", "neither Parquet, Arrow, JSON, JSON lines nor tab-separated"),
    ],
)
def test_a_header_that_is_none_is_refused(bring, tmp_path, text, said):
    (tmp_path / "a.tsv").write_bytes(text)
    with pytest.raises(BadData, match=said):
        bring(tmp_path / "a.tsv")


def test_missing_columns_are_all_named_with_what_to_do(bring, tmp_path):
    (tmp_path / "a.tsv").write_text("number\tpicture\tquestion\n")
    with pytest.raises(BadConfig) as caught:
        bring(tmp_path / "a.tsv", "--facet", "level")
    said = str(caught.value)
    assert "no column index (id), image, answer, category, level (facet level)" in said
    assert "it has number, picture, question" in said
    assert "--column id=" in said
    assert "--no-category" in said
