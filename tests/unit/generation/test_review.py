"""Samples that a person looks at before they are trained on: the draft, the table to mark up, and the marks applied."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import serving
from tests.unit.generation import world

from dpe_jobs.generation.run import run
from dpe_jobs.generation.shards import INDEX
from dpe_jobs.lineage.walk import Ancestor, sample_files
from dpe_jobs.runtime import BadData
from dpe_jobs.training.samples import in_store

DRAFT = f"{world.OUT}/draft"


def launch(url: str = "", **changes: Any) -> Any:
    return world.launch(url, generation={"review": "required", **changes.pop("generation", {})}, **changes)


def drafted(store: MemoryStore) -> list[dict[str, Any]]:
    """Rows of review.parquet."""
    with serving(world.solves(0.5)) as model:
        run(launch(model.url), store)
    return table(store, "review.parquet")


def table(store: MemoryStore, name: str) -> list[dict[str, Any]]:
    return list(pq.read_table(pa.BufferReader(store.get(f"{DRAFT}/{name}"))).to_pylist())


def mark(store: MemoryStore, rows: list[dict[str, Any]], **columns: pa.DataType) -> None:
    out = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([{k: v for k, v in row.items() if k != "image"} for row in rows]), out)
    store.put(f"{DRAFT}/reviewed.parquet", out.getvalue().to_pybytes())


def kept_all(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"verdict": "keep"} for row in rows]


def accept(store: MemoryStore, attempt: int = 2) -> None:
    run(launch(attempt=attempt, reviewed=True), store)


def test_a_draft_is_no_generation_and_holds_every_sample_to_be_marked(store):
    rows = drafted(store)
    assert store.manifest(world.OUT) is None
    manifest = store.manifest(DRAFT)
    assert {"review.parquet", "gallery.html", "README.md", "rejected.parquet"} <= {o.path for o in manifest.outputs}
    samples = [r for o in manifest.outputs if o.path.startswith("samples/") for r in table(store, o.path)]
    shown = ("id", "image", "question", "answer", "category", "pass_rate")
    assert [[row[name] for name in shown] for row in rows] == [[row[name] for name in shown] for row in samples]
    assert {(row["verdict"], row["remark"]) for row in rows} == {(None, None)}
    run(launch("http://x", attempt=2), store)
    assert store.manifest(world.OUT) is None, "nobody has accepted it"


def test_datasets_opens_the_table_with_images(store, tmp_path):
    datasets = pytest.importorskip("datasets")
    drafted(store)
    store.download(f"{DRAFT}/review.parquet", tmp_path / "review.parquet")
    rows = datasets.Dataset.from_parquet(str(tmp_path / "review.parquet"), cache_dir=str(tmp_path / "cache"))
    assert rows[0]["image"].size == (64, 64)
    back, bad = tmp_path / "reviewed.parquet", {rows[3]["id"]: "the answer is blue"}  # as docs/generation.md says it
    marked = rows.map(lambda row: {"verdict": "drop" if row["id"] in bad else "keep", "remark": bad.get(row["id"], "")})
    marked.remove_columns("image").to_parquet(str(back))
    store.put(f"{DRAFT}/reviewed.parquet", back.read_bytes())
    accept(store)
    assert world.summary(store).kept == 21


def test_accepted_without_marks_everything_is_kept_byte_for_byte(store):
    drafted(store)
    accept(store)
    files = {o.path: o.sha256 for o in store.manifest(DRAFT).outputs if o.path.startswith("samples/")}
    assert {o.path: o.sha256 for o in store.manifest(world.OUT).outputs if o.path.startswith("samples/")} == files
    assert (
        world.summary(store).rejected == world.GenerationSummary.model_validate(store.manifest(DRAFT).summary).rejected
    )


def test_what_is_marked_drop_is_a_rejection_with_the_remark_and_trains_nobody(store):
    rows = drafted(store)
    before = world.GenerationSummary.model_validate(store.manifest(DRAFT).summary)
    gone = {rows[0]["id"]: "wrong answer", rows[5]["id"]: ""}
    mark(
        store,
        [r | ({"verdict": "drop", "remark": gone[r["id"]]} if r["id"] in gone else {"verdict": "keep"}) for r in rows],
    )
    accept(store)
    assert {row["id"] for row in world.samples(store)} == {row["id"] for row in rows} - gone.keys()
    rejected = {r["id"]: r for r in world.table(store, "rejected.parquet") if r["reason"] == "Reviewed"}
    assert rejected.keys() == gone.keys()
    assert rejected[rows[0]["id"]]["detail"] == "wrong answer"
    assert rejected[rows[5]["id"]]["detail"] == "marked drop in reviewed.parquet"
    assert rejected[rows[0]["id"]]["question"] == rows[0]["question"]
    assert all(len(r["image_sha256"]) == 64 for r in rejected.values())
    said = world.summary(store)
    assert (said.kept, said.shortfall, said.rejected["Reviewed"]) == (20, 2, 2)
    assert (
        said.candidates == before.candidates == len(world.samples(store)) + len(world.table(store, "rejected.parquet"))
    )
    assert sum(c.kept for c in said.categories) == sum(said.sources.values()) == sum(said.licences.values()) == 20
    manifest = store.manifest(world.OUT)
    trained = [uri for uri, _ in sample_files(Ancestor(world.OUT, None, None, manifest))]
    assert [s.name for s in in_store(store, world.OUT)] == [uri.removeprefix(f"{world.OUT}/") for uri in trained]
    assert {f"{DRAFT}/reviewed.parquet", DRAFT} <= {one.uri for one in manifest.inputs}
    page, card = (store.get(f"{world.OUT}/{name}").decode() for name in ("gallery.html", "README.md"))
    assert 'data-outcome="Reviewed"' in page
    assert "| Reviewed | 2 |" in card


def test_a_category_that_is_dropped_whole_has_no_file_left(store):
    rows = drafted(store)
    mark(store, [r | {"verdict": "drop" if r["category"] == "color" else "keep"} for r in rows])
    accept(store)
    (color,) = [c for c in world.summary(store).categories if c.name == "color"]
    assert (color.kept, color.shortfall_reason) == (0, "Reviewed")
    assert {row["category"] for row in world.samples(store)} == {"color_fine", "shape"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda rows: [rows[0] | {"verdict": "Drop"}, *rows[1:]],
            r"row 0, column verdict is 'Drop': write keep or drop",
        ),
        (lambda rows: [*rows[:3], rows[3] | {"verdict": None}, *rows[4:]], "row 3, column verdict is None: write keep"),
        (lambda rows: [rows[0] | {"id": "x"}, *rows[1:]], "row 0, column id is 'x', which is no sample of the draft"),
        (lambda rows: [*rows, rows[0]], "row 22, column id is 'r0-.*', as in row 0: remove one"),
        (lambda rows: rows[1:], "lacks 1 samples, 'r0-.*' for one: give every row of review.parquet"),
        (lambda rows: [{"id": row["id"]} for row in rows], "has no column verdict; it has id: copy review.parquet"),
        (lambda rows: [row | {"verdict": "drop"} for row in rows], "marks all 22 samples drop: keep some, or annotate"),
    ],
)
def test_a_bad_mark_names_row_column_value_and_mend_and_can_be_corrected(store, spoil, message):
    rows = kept_all(drafted(store))
    mark(store, spoil(rows))
    with pytest.raises(BadData, match=rf"draft/reviewed\.parquet.*{message}") as caught:
        accept(store)
    assert caught.value.reason == "BadReview"
    assert store.manifest(world.OUT) is None
    mark(store, rows)
    accept(store, attempt=3)
    assert world.summary(store).kept == 22


def test_a_file_that_is_no_parquet_is_a_bad_review(store):
    drafted(store)
    store.put(f"{DRAFT}/reviewed.parquet", b"id,verdict\n")
    with pytest.raises(BadData, match=r"reviewed\.parquet is no Parquet file"):
        accept(store)


def test_files_of_an_earlier_attempt_with_other_marks_are_removed(store):
    rows = drafted(store)
    store.put(f"{world.OUT}/samples/000-00009.parquet", b"left behind")
    mark(store, kept_all(rows))
    accept(store)
    assert f"{world.OUT}/samples/000-00009.parquet" not in store.objects


def test_shards_make_one_draft(store, monkeypatch):
    with serving(world.solves(0.5)) as model:
        for index in range(3):
            monkeypatch.setenv(INDEX, str(index))
            run(launch(model.url, generation={"shards": 3}), store)
    assert store.manifest(world.OUT) is None
    rows = table(store, "review.parquet")
    assert len({row["id"] for row in rows}) == 22
    mark(store, [r | {"verdict": "drop" if n == 0 else "keep"} for n, r in enumerate(rows)])
    run(launch(attempt=2, reviewed=True, generation={"shards": 3}), store)
    assert len(world.samples(store)) == 21


def test_reviewing_before_there_is_a_draft_says_so(store, tmp_path: Path):
    with pytest.raises(BadData, match="nothing was reviewed"):
        accept(store)
