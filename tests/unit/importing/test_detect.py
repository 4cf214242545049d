import gzip
import json

import pyarrow as pa
import pytest
from tests.unit.importing.sources import easy_vqa, png, tsv_row, write_llava, write_tsv

from dpe_jobs.importing.detect import Format, detect, format_of, split_of
from dpe_jobs.importing.files import DiskFiles, check_name
from dpe_jobs.questions import write_questions
from dpe_jobs.runtime import BadConfig, BadData


@pytest.fixture(scope="module")
def rows():
    return easy_vqa()[:3]


def test_a_file_is_told_by_its_content_not_by_its_name(rows, tmp_path):
    write_questions(rows, tmp_path / "parquet")
    write_tsv([tsv_row(q) for q in rows], tmp_path / "tsv")
    write_llava(rows, tmp_path).rename(tmp_path / "json")
    write_llava(rows, tmp_path, "a.jsonl").rename(tmp_path / "jsonl")
    table = pa.table({"id": ["a"]})
    with pa.ipc.new_stream(tmp_path / "arrow", table.schema) as writer:
        writer.write_table(table)
    assert [format_of(tmp_path / kind) for kind in Format] == list(Format)
    with pa.ipc.new_file(tmp_path / "arrow", table.schema) as writer:
        writer.write_table(table)
    assert format_of(tmp_path / "arrow") is Format.ARROW


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(b"a\tb\n", mtime=0), "is gzip: unpack it first"),
        (b"PK\3\4", "is zip: unpack it first"),
        ("a\tb".encode("utf-16"), "is UTF-16: convert it to UTF-8"),
        (b"a,b\n1,2\n", "neither Parquet, Arrow, JSON"),
        (png(), "neither Parquet, Arrow, JSON"),
        (b"", "neither Parquet, Arrow, JSON"),
    ],
)
def test_what_is_none_of_ours_is_refused_with_what_to_do(bring, tmp_path, content, said):
    (tmp_path / "a.tsv").write_bytes(content)
    with pytest.raises(BadData, match=said):
        bring(tmp_path / "a.tsv")


def test_a_format_that_is_told_is_believed(bring, rows, tmp_path):
    path = write_llava(rows, tmp_path, "a.jsonl")
    path.write_text("# made by hand\n" + path.read_text())
    with pytest.raises(BadData, match="or name its --format"):
        bring(path)
    assert bring(path, "--format", "jsonl", "--max-bad", "1").questions == 3


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("train-00001-of-00002-0123abcd.parquet", "train"),
        ("data/dev_easy-00000-of-00001.parquet", "dev_easy"),
        ("default/test/0000.parquet", "test"),
        ("validation.parquet", "validation"),
        ("my-dev.parquet", "validation"),
        ("data/part-00000.parquet", None),
        ("contest.parquet", None),
    ],
)
def test_the_split_of_a_file(name, split):
    assert split_of(name) == split


def test_a_split_has_to_be_chosen_where_there_are_several(rows, tmp_path):
    for split in ("train", "test"):
        write_questions(rows, tmp_path / f"{split}-00000-of-00001.parquet")
    files = DiskFiles(tmp_path)
    with pytest.raises(BadConfig, match=r"several splits \(test, train\): choose one with --split"):
        detect(files, None, None)
    with pytest.raises(BadConfig, match="--split val: the source has test, train"):
        detect(files, None, "val")
    assert detect(files, None, "train").names == ("train-00000-of-00001.parquet",)


def test_a_split_of_a_source_without_splits_is_refused(bring, rows, tmp_path):
    with pytest.raises(BadConfig, match="has no splits: leave it out"):
        bring(write_llava(rows, tmp_path), "--split", "train")


def test_a_folder_with_one_file_is_that_file_and_with_several_none(rows, tmp_path):
    write_llava(rows, tmp_path)
    (tmp_path / "README.md").write_text("hello")
    assert detect(DiskFiles(tmp_path), None, None).names == ("probe.json",)
    write_tsv([tsv_row(q) for q in rows], tmp_path / "a.tsv")
    with pytest.raises(BadConfig, match=r"2 files to import \(a.tsv, probe.json\): name one file"):
        detect(DiskFiles(tmp_path), None, None)
    assert detect(DiskFiles(tmp_path), Format.TSV, None).names == ("a.tsv",)


def test_a_saved_folder_that_is_not_whole_is_refused(tmp_path):
    state = tmp_path / "state.json"
    state.write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    with pytest.raises(BadData, match=r"lists data-00000-of-00001.arrow, which is not there: copy the whole folder"):
        detect(DiskFiles(tmp_path), None, None)
    state.write_text("{}")
    with pytest.raises(BadData, match="lists no data files"):
        detect(DiskFiles(tmp_path), None, None)


def test_a_source_that_is_not_there_is_named(bring, tmp_path):
    with pytest.raises(BadConfig, match="nowhere does not exist: correct the path"):
        bring(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["/etc/passwd", "../a", "a/../../b", "", ".", "a\\b", "a\0b"])
def test_names_that_lead_out_of_a_folder(name):
    with pytest.raises(ValueError, match="leads out of the folder"):
        check_name(name)


def test_names_that_stay_inside():
    assert check_name("./a/b.png") == "a/b.png"
