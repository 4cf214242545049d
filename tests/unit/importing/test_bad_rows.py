"""Every kind of malformed row is listed by number, field and reason; nothing is published, or nothing but the rest."""

import base64
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.importing.conftest import TO
from tests.unit.importing.sources import bare, columns_of, easy_vqa, png, tsv_row, write_llava, write_tsv

from dpe_jobs.importing import report as reports
from dpe_jobs.importing.report import BadRowEntry
from dpe_jobs.runtime import BadConfig, BadData

BAD = 2  # the bad row among five
PNG = base64.b64encode(png()).decode()


@pytest.fixture(scope="module")
def rows():
    return easy_vqa()[:5]  # on colour, with choices


def entries(store):
    return [BadRowEntry.model_validate_json(line) for line in store.get(f"{TO}/bad-rows.jsonl").splitlines()]


def refuse(bring, store, source, *flags):
    """The entries of a source that is refused."""
    with pytest.raises(BadData) as caught:
        bring(source, *flags)
    assert set(store.objects) == {f"{TO}/import.json", f"{TO}/bad-rows.jsonl"}
    assert json.loads(store.get(f"{TO}/import.json"))["published"] is False
    return caught.value, entries(store)


def check(bring, published, store, capsys, rows, source, place, field, reason, *flags):
    """Exactly row BAD is listed, with place, field and reason; left out on request, the rest is published."""
    error, (entry,) = refuse(bring, store, source, *flags)
    assert (entry.row, entry.place, entry.field) == (BAD, place, field)
    assert reason in entry.reason
    assert f"row {BAD} ({place}), {field}: {entry.reason}" in capsys.readouterr().err
    assert error.reason == "BadRows"
    assert str(error).startswith(f"1 of 5 rows are bad, all listed in {TO}/bad-rows.jsonl: mend")
    report = bring(source, *flags, "--max-bad", "1")
    assert (report.rows, report.questions, report.bad, report.bad_by_field) == (5, 4, 1, {field: 1})
    assert [q.id for q in published()] == [q.id for q in rows if q is not rows[BAD]]


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"index": ""}, "index", "empty"),
        ({"index": "FIRST"}, "index", "'FIRST' is row 0's id too"),
        ({"question": "  "}, "question", "empty"),
        ({"answer": ""}, "answer", "empty"),
        ({"answer": "F"}, "answer", "'F' is none of the 5 choices"),
        ({"answer": "purple"}, "answer", "'purple' is none of the 5 choices"),
        ({"B": ""}, "B", "empty, though E is filled"),
        ({"C": "Red"}, "A,B,C,D,E", "choices A and C are alike"),
        ({"B": "", "C": "", "D": "", "E": ""}, "A", "a single choice"),
        ({"category": ""}, "category", "empty"),
        ({"image": ""}, "image", "empty"),
        ({"image": PNG[:-5]}, "image", "no base64"),
        ({"image": PNG.replace("A", "?", 1)}, "image", "no base64"),
        ({"image": base64.b64encode(png()[:-30]).decode()}, "image", "does not decode"),
        ({"image": base64.b64encode(b"GIF89a, it said, and no more of it came than this").decode()}, "image", "decode"),
        ({"image": f"['{PNG}', '{PNG}']"}, "image", "2 images: a question has one"),
        ({"image": "12345"}, "image", "refers to row 12345, which has no image of its own"),
        ({"image": "other.png"}, "image", "'other.png' cannot be read: No such file"),
        ({"image": "../other.png"}, "image", "leads out of the folder"),
        ({"question": "what \udcff color?"}, "question", "not UTF-8"),
    ],
)
def test_in_a_tsv(bring, published, store, capsys, rows, tmp_path, change, field, reason):
    cells = [tsv_row(q) for q in rows]
    cells[0]["index"] = rows[0].id
    cells[BAD] |= {k: rows[0].id if v == "FIRST" else v for k, v in change.items()}
    with (tmp_path / "a.tsv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as handle:
        handle.write("\t".join(cells[0]) + "\n" + "".join("\t".join(row.values()) + "\n" for row in cells))
    check(
        *(bring, published, store, capsys, rows, tmp_path / "a.tsv", f"a.tsv line {BAD + 2}"),
        field,
        reason.replace("FIRST", rows[0].id),
    )


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda line: line + "\tmore", "15 cells, the header has 14"),
        (lambda line: line.rsplit("\t", 1)[0], "13 cells, the header has 14"),
        (lambda line: line.replace("\twhat", '\t"what', 1), "a quote is opened and closed only in line 6"),
        (lambda line: line.replace("\twhat", '\t"what"is', 1), "not tab-separated"),
        (lambda line: line + "x" * 70_000, "the line is longer than"),
    ],
)
def test_lines_of_a_tsv(bring, published, store, capsys, rows, tmp_path, monkeypatch, make, reason):
    monkeypatch.setattr("dpe_jobs.importing.text.MAX_LINE", 60_000)
    path = write_tsv([tsv_row(q) | {"note": "fine"} for q in rows], tmp_path / "a.tsv")
    lines = path.read_text().splitlines()
    lines[BAD + 1] = make(lines[BAD + 1])
    # a quote in the same column of the last row: the cells between would be one, and their number right
    lines[-1] = lines[-1].replace("?\t", '?"\t', 1)
    path.write_text("\n".join(lines))
    check(bring, published, store, capsys, rows, path, f"a.tsv line {BAD + 2}", "row", reason)


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"id": None}, "id", "empty"),
        ({"id": {"a": 1}}, "id", "a dict, not a text"),
        ({"image": "images/none.png"}, "image", "cannot be read: No such file"),
        ({"image": "/etc/hostname"}, "image", "leads out of the folder"),
        ({"image": "../../../etc/hostname"}, "image", "leads out of the folder"),
        ({"image": "https://example.org/a.png"}, "image", "download the images first"),
        ({"image": ["images/a.png", "images/b.png"]}, "image", "2 images"),
        ({"image": "images"}, "image", "cannot be read: Is a directory"),
        ({"image": "text.txt"}, "image", "does not decode"),
        ({"image": 5}, "image", "a int, not an image"),
        ({"image": "data:image/png,abc"}, "image", "not base64"),
        ({"conversations": []}, "conversations", "no list of turns"),
        ({"conversations": [{"from": "human", "value": "why?"}]}, "conversations", "1 turns: each question needs"),
        ({"conversations": [{"from": "human"}, {"from": "gpt", "value": "b"}]}, "conversations", "without from and"),
        ({"conversations": ["a", "b"]}, "conversations", "a turn that is no object"),
        (
            {"conversations": [{"from": "system", "value": "a"}, {"from": "gpt", "value": "b"}]},
            "conversations",
            "turns 0 and 1 are by 'system' and 'gpt'",
        ),
        (
            {"conversations": [{"from": "human", "value": "is <image> red?"}, {"from": "gpt", "value": "yes"}]},
            *("conversations", "<image> inside a text or more than once"),
        ),
        (
            {"conversations": [{"from": "human", "value": "<image>\n"}, {"from": "gpt", "value": "yes"}]},
            *("conversations", "turn 0 asks nothing"),
        ),
        (
            {"conversations": [{"from": "human", "value": "red?"}, {"from": "gpt", "value": " "}]},
            *("conversations", "turn 1 is empty"),
        ),
        ({"choices": ["red"]}, "choices", "a single choice"),
        ({"choices": "red, blue"}, "choices", "neither a list nor the text of one"),
        ({"choices": ["red", ""]}, "choices", "choice B is empty"),
        ({"choices": ["pink", "purple"]}, "conversations", "is none of the 2 choices"),
        ({"answer_type": "essay"}, "answer_type", "'essay' is none of exact"),
        ({"answer_type": "yes_no", "choices": None}, "conversations", "neither yes nor no"),
        ({"answer_type": "number", "choices": None}, "conversations", "holds no single number"),
        ({"facets": "red"}, "facets", "write an object"),
        ({"category": ["a"]}, "category", "a list, not a text"),
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_in_llava(bring, published, store, capsys, rows, tmp_path, change, field, reason, name):
    path = write_llava(rows, tmp_path, name)
    (tmp_path / "text.txt").write_text("this is no image")
    read = [json.loads(line) for line in path.read_text().splitlines()] if name == "a.jsonl" else None
    found = read or json.loads(path.read_text())
    found[BAD] |= change
    path.write_text("\n".join(map(json.dumps, found)) if read else json.dumps(found))
    place = f"a.jsonl line {BAD + 1}" if read else f"a.json row {BAD}"
    check(bring, published, store, capsys, rows, path, place, field, reason)


def test_half_a_character_is_a_bad_row(bring, published, store, capsys, rows, tmp_path):
    path = write_llava(rows, tmp_path, "a.jsonl")
    lines = path.read_text().splitlines()
    lines[BAD] = json.dumps(json.loads(lines[BAD]) | {"category": "\ud800"})
    path.write_text("\n".join(lines))
    check(bring, published, store, capsys, rows, path, f"a.jsonl line {BAD + 1}", "category", "not UTF-8")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": "a", ', "no JSON"),
        ('["a"]', "a list, not an object"),
        ('{"id": NaN}', "NaN is no JSON"),
        ("[" * 100_000, "no JSON"),
        ('{"id": "' + "x" * 70_000 + '"}', "the line is longer than"),
    ],
)
def test_lines_of_json_lines(bring, published, store, capsys, rows, tmp_path, monkeypatch, line, reason):
    if "longer" in reason:
        monkeypatch.setattr("dpe_jobs.importing.text.MAX_LINE", 60_000)
    path = write_llava(rows, tmp_path, "a.jsonl")
    lines = path.read_text().splitlines()
    lines[BAD] = line
    path.write_text("\n\n".join(lines))
    check(bring, published, store, capsys, rows, path, f"a.jsonl line {2 * BAD + 1}", "row", reason)


def test_an_array_that_breaks_off_is_refused_whatever_may_be_left_out(bring, store, rows, tmp_path):
    path = write_llava(rows, tmp_path)
    path.write_text(path.read_text()[:-300])
    error, (entry,) = refuse(bring, store, path, "--max-bad", "100")
    assert (error.reason, entry.row, entry.field) == ("SourceBreaksOff", 4, "row")
    assert "no JSON from here on" in entry.reason


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"id": ""}, "id", "empty"),
        ({"image": None}, "image", "empty"),
        ({"image": {"bytes": None, "path": None}}, "image", "empty"),
        ({"image": {"bytes": None, "path": "x.png"}}, "image", "'x.png' cannot be read"),
        ({"image": {"bytes": b"junk", "path": None}}, "image", "does not decode"),
        ({"question": None}, "question", "empty"),
        ({"answer": None}, "answer", "empty"),
        ({"answer": "purple"}, "answer", "none of the 5 choices"),
        ({"choices": ["a", None]}, "choices", "choice B is empty"),
        ({"category": None}, "category", "empty"),
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_in_a_table(bring, published, store, capsys, rows, tmp_path, change, field, reason, kind):
    columns = columns_of(rows)
    for name, value in change.items():
        columns[name][BAD] = value
    path = tmp_path / f"a.{kind}"
    write_table(pa.table(columns), path)
    check(bring, published, store, capsys, rows, path, f"{path.name} row {BAD}", field, reason)


def write_table(table: pa.Table, path) -> None:
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_table_that_breaks_off_is_refused(bring, store, rows, tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    write_table(pa.table(columns_of(rows)), path)
    data = path.read_bytes()
    path.write_bytes(data[:-50] if kind == "arrow" else data[:100] + bytes(3000) + data[3100:])
    error, found = refuse(bring, store, path, "--max-bad", "9")
    assert error.reason == "SourceBreaksOff"
    assert found[0].field == "row"


def test_all_faults_of_a_row_are_told_at_once(bring, store, rows, tmp_path):
    cells = [tsv_row(q) for q in rows]
    cells[1] |= {"question": "", "image": "", "answer": "", "category": ""}
    _, found = refuse(bring, store, write_tsv(cells, tmp_path / "a.tsv"))
    assert {e.row for e in found} == {1}
    assert {e.field for e in found} == {"question", "image", "answer", "category"}


def test_the_terminal_is_told_of_some_and_the_file_of_all(bring, store, rows, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reports, "LISTED", 3)
    cells = [tsv_row(rows[0]) | {"index": str(n), "question": ""} for n in range(20)]
    error, found = refuse(bring, store, write_tsv(cells, tmp_path / "a.tsv"))
    assert [e.row for e in found] == list(range(20))
    told = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in told] == ["row 0", "row 1", "row 2", "... and 17 more"]
    assert "20 of 20 rows are bad" in str(error)


def test_left_out_rows_lie_listed_beside_the_data(bring, store, rows, tmp_path):
    cells = [tsv_row(q) for q in rows]
    cells[3]["answer"] = "Z"
    bring(write_tsv(cells, tmp_path / "a.tsv"), "--max-bad", "5", "--report", str(tmp_path / "r"))
    assert [e.row for e in entries(store)] == [3]
    assert (tmp_path / "r" / "bad-rows.jsonl").read_bytes() == store.get(f"{TO}/bad-rows.jsonl")
    report = json.loads(store.get(f"{TO}/import.json"))
    assert (report["published"], report["bad"], report["firstBad"][0]["row"]) == (True, 1, 3)
    assert store.manifest(TO).summary["bad"] == 1


def test_checking_writes_nothing_and_refuses_alike(bring, store, rows, tmp_path):
    cells = [tsv_row(q) for q in rows]
    good = write_tsv(cells, tmp_path / "good.tsv")
    assert bring(good, "--check").questions == 5
    cells[0]["answer"] = "Z"
    with pytest.raises(BadData, match=r"1 of 5 rows are bad, all listed in .*/r/bad-rows.jsonl"):
        bring(write_tsv(cells, tmp_path / "bad.tsv"), "--check", "--report", str(tmp_path / "r"))
    assert json.loads((tmp_path / "r" / "bad-rows.jsonl").read_text())["row"] == 0
    assert store.objects == {}


def test_a_source_without_rows_is_refused(bring, rows, tmp_path):
    path = write_tsv([tsv_row(rows[0])], tmp_path / "a.tsv")
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(BadData, match="holds no rows"):
        bring(path)


def test_a_column_of_free_text_is_not_taken_for_categories(bring, rows, tmp_path, monkeypatch, store):
    monkeypatch.setattr(reports, "MAX_CATEGORIES", 3)
    with pytest.raises(BadConfig, match="more than 3 categories"):
        bring(write_tsv([tsv_row(q) for q in rows], tmp_path / "a.tsv"), "--column", "category=index")
    assert store.objects == {}


def test_choices_and_order_survive_what_is_left_out(bring, published, rows, tmp_path):
    cells = [tsv_row(q) for q in rows]
    cells[0]["image"] = ""
    bring(write_tsv(cells, tmp_path / "a.tsv"), "--max-bad", "1", "--column", "facets=")
    assert [(q.id, q.choices, q.answer) for q in published()] == [(q.id, q.choices, q.answer) for q in bare(rows)[1:]]
