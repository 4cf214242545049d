import dataclasses
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.fakes.memory_store import MemoryStore
from tests.fakes.worlds import picture, questions

from dpe_api.artifacts import AnswerType
from dpe_jobs.questions import (
    BATCH_BYTES,
    SCHEMA,
    Question,
    batch_rows,
    check_image,
    open_parquet,
    read_facets,
    read_questions,
    schema,
    write_questions,
)
from dpe_jobs.runtime import BadData
from dpe_jobs.store import NotFound

URI = "s3://dpe/data/set"


def upload(store: MemoryStore, rows: list[dict], tmp_path: Path, name: str = "part-0.parquet", schema=SCHEMA) -> None:
    path = tmp_path / name
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    store.upload(path, f"{URI}/{name}")


def good(number: int = 0) -> dict:
    return questions(number + 1)[number].row()


def read(store: MemoryStore) -> list[Question]:
    return list(read_questions(store, URI))


def test_what_was_written_is_read_back(tmp_path):
    store, rows = MemoryStore(), questions(4)
    rows[0] = dataclasses.replace(
        rows[0], choices=("red", "blue"), answer_type=AnswerType.CHOICE, source="easy-vqa", licence="MIT"
    )
    assert write_questions(rows, tmp_path / "a.parquet", batch_rows=5) == 12
    store.upload(tmp_path / "a.parquet", f"{URI}/a.parquet")
    assert read(store) == rows


def test_datasets_opens_a_question_set_with_images(tmp_path):
    datasets = pytest.importorskip("datasets")
    write_questions(questions(1), tmp_path / "a.parquet")
    data = datasets.load_dataset("parquet", data_files=str(tmp_path / "a.parquet"), cache_dir=str(tmp_path / "c"))
    row = data["train"][0]
    assert isinstance(row["image"], Image.Image)
    assert row["facets"] == [{"key": "color", "value": "red"}]


def test_the_optional_columns_may_be_missing(tmp_path):
    store = MemoryStore()
    fields = [f for f in SCHEMA if f.name in ("id", "image", "question", "answer", "answer_type", "category")]
    row = {k: v for k, v in good().items() if k in {f.name for f in fields}}
    upload(store, [row], tmp_path, schema=pa.schema(fields))
    assert read(store)[0].facets == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": ""}, "column id: empty"),
        ({"question": "  "}, "column question"),
        ({"answer": None}, "column answer: empty"),
        ({"category": None}, "column category: empty"),
        ({"answer_type": "essay"}, "column answer_type: 'essay' is not a valid AnswerType"),
        ({"answer_type": "yes_no", "answer": "red"}, "column answer: .*neither yes nor no"),
        ({"answer_type": "choice", "choices": ["a", "b"], "answer": "red"}, "column answer: .*none of the choices"),
        ({"image": {"bytes": None, "path": "x.png"}}, "column image: no image bytes"),
        ({"image": {"bytes": b"junk", "path": None}}, "column image: the image does not decode"),
        ({"image": {"bytes": picture("red")[:-30], "path": None}}, "column image: the image does not decode"),
    ],
)
def test_a_bad_row_is_refused_with_file_row_column_and_mend(tmp_path, change, said):
    store = MemoryStore()
    upload(store, [good(0), good(1) | change], tmp_path)
    with pytest.raises(
        BadData, match=f"^s3://dpe/data/set/part-0.parquet row 1, {said}.*: (write|correct|store|replace) .+"
    ) as caught:
        read(store)
    assert caught.value.reason == "BadQuestion"


def test_a_duplicate_id_names_both_rows(tmp_path):
    store = MemoryStore()
    upload(store, [good(0)], tmp_path, "part-0.parquet")
    upload(store, [good(1), good(0)], tmp_path, "part-1.parquet")
    with pytest.raises(BadData, match=r"part-1.parquet row 1, column id: 'color-0' is also in .*part-0.parquet row 0"):
        read(store)


def test_missing_columns_are_all_named(tmp_path):
    store = MemoryStore()
    upload(
        store,
        [{"id": "a", "question": "b"}],
        tmp_path,
        schema=pa.schema([SCHEMA.field("id"), SCHEMA.field("question")]),
    )
    with pytest.raises(BadData, match="no column image, answer, answer_type, category; it has id, question"):
        read(store)


def test_a_set_without_categories_is_read_where_an_endpoint_assigns_them(tmp_path):
    store, row = MemoryStore(), good()
    row.pop("category")
    upload(store, [row], tmp_path, schema=schema(categories=False))
    with pytest.raises(BadData, match="has no column category"):
        read(store)
    assert [q.category for q in read_questions(store, URI, categories=False)] == [""]


def test_categories_that_are_there_are_read_also_where_they_need_not_be(tmp_path):
    store = MemoryStore()
    upload(store, [good(0), good(1) | {"category": None}], tmp_path)
    assert [q.category for q in read_questions(store, URI, categories=False)] == ["color", ""]


def test_large_images_are_read_few_at_a_time(tmp_path):
    row = questions(1)[0]
    large = []
    for number in range(8):
        Image.effect_noise((1200, 1200), 100).save(tmp_path / "noise.png")
        large.append(dataclasses.replace(row, id=str(number), image=(tmp_path / "noise.png").read_bytes()))
    write_questions(large, tmp_path / "large.parquet")
    write_questions([row] * 8, tmp_path / "small.parquet")
    assert batch_rows(open_parquet(tmp_path / "small.parquet")) == 256
    size = BATCH_BYTES // len(large[0].image)
    assert 0.5 * size <= batch_rows(open_parquet(tmp_path / "large.parquet")) <= 1.1 * size


@pytest.mark.parametrize("kind", ["TIFF", "ICO", "PPM"])
def test_only_what_servers_take_is_an_image(kind):
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, kind)
    with pytest.raises(ValueError, match="cannot identify image"):
        check_image(out.getvalue())


def test_grey_values_of_16_bits_are_refused_because_every_model_would_see_white():
    out = io.BytesIO()
    Image.fromarray(np.linspace(0, 65535, 64 * 64, dtype=np.uint16).reshape(64, 64)).save(out, "PNG")
    with pytest.raises(ValueError, match=r"16 bits.*scale them to 8 bits"):
        check_image(out.getvalue())


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    store = MemoryStore()
    store.put(f"{URI}/part-0.parquet", b"hello")
    with pytest.raises(BadData, match=r"part-0.parquet is no Parquet file"):
        read(store)


def test_an_empty_set_and_a_missing_one_are_refused(tmp_path):
    store = MemoryStore()
    with pytest.raises(NotFound, match=r"holds no .parquet file"):
        read(store)
    upload(store, [], tmp_path)
    with pytest.raises(BadData, match="holds no rows"):
        read(store)


def test_a_column_of_another_type_is_refused(tmp_path):
    store = MemoryStore()
    schema = pa.schema([f if f.name != "id" else pa.field("id", pa.int64()) for f in SCHEMA])
    upload(store, [good() | {"id": 7}], tmp_path, schema=schema)
    with pytest.raises(BadData, match="column id: 7"):
        read(store)


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("source", pa.int64(), 7),
        ("licence", pa.float64(), 4.0),
        ("choices", pa.int64(), 3),
        ("choices", pa.string(), "red, blue"),
        ("choices", pa.list_(pa.string()), ["red", None]),
    ],
)
def test_an_optional_column_of_another_type_is_refused_with_file_row_and_mend(tmp_path, name, kind, value):
    store = MemoryStore()
    schema = pa.schema([f if f.name != name else pa.field(name, kind) for f in SCHEMA])
    upload(store, [good() | {name: value}], tmp_path, schema=schema)
    with pytest.raises(BadData, match=rf"part-0.parquet row 0, column {name}: .*: write a .*leave it empty"):
        read(store)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr("dpe_jobs.questions.MAX_PIXELS", 10)
    with pytest.raises(ValueError, match="8x8 pixels"):
        check_image(picture("red"))


def test_facets_are_read_as_pairs_as_a_map_and_as_a_struct():
    want = {"color": "red"}
    assert read_facets([{"key": "color", "value": "red"}]) == want
    assert read_facets([("color", "red")]) == want
    assert read_facets({"color": "red", "shape": None}) == want
    assert read_facets([{"key": "color", "value": "red"}, {"key": "shape", "value": None}]) == want
    assert read_facets(None) == {}
