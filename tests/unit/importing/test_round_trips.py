"""easy-vqa through every format, and back: each id, pixel, question, answer, choice, category and facet is the same."""

import io
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.unit.importing.conftest import TO
from tests.unit.importing.sources import (
    FACETS,
    bare,
    columns_of,
    easy_vqa,
    png,
    put_folder,
    tsv_row,
    write_llava,
    write_tsv,
)

from dpe_jobs.questions import write_questions
from dpe_jobs.store import sha256_file

TSV_FLAGS = [part for name in FACETS for part in ("--facet", name)]


@pytest.fixture(scope="module")
def rows():
    return easy_vqa()


def pixels(image: bytes) -> tuple[str, bytes]:
    with Image.open(io.BytesIO(image)) as opened:
        return opened.mode, opened.tobytes()


def same(found, wanted) -> None:
    assert [pixels(q.image) for q in found] == [pixels(q.image) for q in wanted]
    assert found == wanted  # the files of the images are the same, too


def test_a_question_set_of_ours_is_imported_as_it_is(bring, published, rows, tmp_path):
    write_questions(rows, tmp_path / "a.parquet")
    report = bring(tmp_path)
    same(published(), rows)
    assert (report.rows, report.questions, report.bad, report.format) == (len(rows), len(rows), 0, "parquet")


def test_a_tsv(bring, published, rows, tmp_path):
    path = write_tsv([tsv_row(q) for q in rows], tmp_path / "probe.tsv")
    report = bring(path, *TSV_FLAGS)
    same(published(), bare(rows))
    assert report.categories == dict.fromkeys(sorted({q.category for q in rows}), 12)


@pytest.mark.parametrize("name", ["probe.json", "probe.jsonl"])
def test_llava(bring, published, rows, tmp_path, name):
    report = bring(write_llava(rows, tmp_path, name))
    same(published(), bare(rows))
    assert report.format == name.rpartition(".")[2]


def test_llava_with_images_in_another_folder(bring, published, rows, tmp_path, store):
    path = write_llava(rows, tmp_path / "a")
    (tmp_path / "a" / "images").rename(tmp_path / "images")
    put_folder(store, tmp_path / "images", "s3://dpe/pictures/images")
    bring(path, "--images", str(tmp_path))
    same(published(), bare(rows))
    bring(path, "--images", "s3://dpe/pictures", "--to", "s3://dpe/data/again")
    same(published("s3://dpe/data/again"), bare(rows))


@pytest.fixture(scope="module")
def dataset(rows):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            **{name: datasets.Value("string") for name in ("id", "question", "answer", "category")},
            "image": datasets.Image(),
            "choices": datasets.List(datasets.Value("string")),
            "facets": datasets.List({"key": datasets.Value("string"), "value": datasets.Value("string")}),
        }
    )
    return datasets.Dataset.from_dict(columns_of(rows), features=features)


def test_a_folder_of_save_to_disk(bring, published, rows, dataset, tmp_path):
    dataset.save_to_disk(tmp_path / "saved", num_shards=3)
    report = bring(tmp_path / "saved")
    same(published(), bare(rows))
    assert report.source == [f"data-{n:05d}-of-00003.arrow" for n in range(3)]


def test_a_split_of_a_saved_dict_in_a_bucket(bring, published, rows, dataset, tmp_path, store):
    datasets = pytest.importorskip("datasets")
    half = len(rows) // 2
    parts = {"train": dataset.select(range(half)), "test": dataset.select(range(half, len(rows)))}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    bring(put_folder(store, tmp_path / "saved", "s3://dpe/raw/saved"), "--split", "test")
    same(published(), bare(rows[half:]))


@pytest.mark.parametrize("bucket", [False, True])
def test_parquet_as_on_a_hub(bring, published, rows, dataset, tmp_path, store, bucket):
    half = len(rows) // 2
    (tmp_path / "data").mkdir()
    dataset.select(range(half)).to_parquet(tmp_path / "data" / "test-00000-of-00002.parquet")
    dataset.select(range(half, len(rows))).to_parquet(tmp_path / "data" / "test-00001-of-00002.parquet")
    dataset.to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    source = put_folder(store, tmp_path, "s3://dpe/raw/hub") if bucket else tmp_path
    report = bring(source, "--split", "test")
    same(published(), bare(rows))
    assert len(report.source) == 2


def test_names_of_classes_stand_for_their_numbers(bring, published, tmp_path):
    datasets = pytest.importorskip("datasets")
    columns = {"image": [{"bytes": png(), "path": None}] * 2, "question": ["which?"] * 2, "label": [1, 0]}
    features = {
        "image": datasets.Image(),
        "question": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["cat", "dog"]),
    }
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(tmp_path / "a.parquet")
    bring(tmp_path / "a.parquet", "--column", "id=", "--column", "answer=label", "--category", "pets")
    assert [(q.id, q.answer, q.category) for q in published()] == [("0", "dog", "pets"), ("1", "cat", "pets")]


def test_columns_have_other_names_or_lie_inside_of_others(bring, published, tmp_path):
    row = {
        "pid": 7,
        "picture": {"bytes": png(), "path": None},
        "query": "how many?",
        "gold": "3",
        "a": "3",
        "b": "4",
        "metadata": {"skill": "counting", "grade": 5},
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    flags = ("id=pid", "image=picture", "question=query", "answer=gold", "choices=a,b", "category=metadata.skill")
    bring(
        tmp_path / "a.parquet",
        *[part for flag in flags for part in ("--column", flag)],
        *("--facet", "level=metadata.grade", "--source-name", "mine", "--licence", "CC0"),
    )
    (found,) = published()
    assert (found.id, found.question, found.answer, found.choices) == ("7", "how many?", "3", ("3", "4"))
    assert (found.category, found.facets, found.source, found.licence) == ("counting", {"level": "5"}, "mine", "CC0")


def test_a_set_without_categories_has_no_such_column(bring, published, rows, tmp_path, store):
    write_questions(rows, tmp_path / "a.parquet")
    bring(tmp_path, "--no-category")
    same(published(categories=False), [replace(q, category="") for q in rows])
    assert store.manifest(TO).summary["categories"] == {}


def test_many_parts_make_one_set_in_order(bring, published, rows, tmp_path, store, monkeypatch):
    monkeypatch.setattr("dpe_jobs.importing.parts.GROUP_ROWS", 5)
    write_questions(rows, tmp_path / "a.parquet")
    report = bring(tmp_path, part_bytes=1)
    assert report.parts == -(-len(rows) // 5)
    same(published(), rows)


def test_the_manifest_lists_what_lies_there_and_what_it_was_made_of(bring, rows, tmp_path, store):
    path = write_tsv([tsv_row(q) for q in rows], tmp_path / "probe.tsv")
    bring(path, *TSV_FLAGS)
    manifest = store.manifest(TO)
    assert (manifest.stage, manifest.summary["rows"]) == ("dataset", len(rows))
    assert [(i.uri, i.sha256) for i in manifest.inputs] == [("probe.tsv", sha256_file(path))]
    assert {f"{TO}/{o.path}" for o in manifest.outputs} | {f"{TO}/manifest.json"} == set(store.objects)
    store.fetch_tree(TO, tmp_path / "fetched")  # checks every sha256
    assert store.puts[-1] != f"{TO}/manifest.json"  # it is created, never put


def test_into_a_folder_on_disk(bring, published, rows, tmp_path, store):
    write_questions(rows, tmp_path / "a.parquet")
    bring(tmp_path / "a.parquet", "--to", str(tmp_path / "out" / "probe"))
    assert sorted(p.name for p in (tmp_path / "out" / "probe").iterdir()) == [
        *("import.json", "manifest.json", "part-00000.parquet")
    ]
    same(published(put_folder(store, tmp_path / "out" / "probe", "s3://dpe/data/copied")), rows)


def test_datasets_opens_what_was_imported(bring, rows, tmp_path):
    datasets = pytest.importorskip("datasets")
    write_questions(rows, tmp_path / "a.parquet")
    bring(tmp_path / "a.parquet", "--to", str(tmp_path / "out"), "--no-category")
    data = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "out" / "*.parquet"), cache_dir=str(tmp_path / "c")
    )["train"]
    assert "category" not in data.column_names
    assert data[0]["image"].size == (64, 64)
