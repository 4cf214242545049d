import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.fakes import worlds
from tests.fakes.memory_store import MemoryStore
from tests.unit.generation import world
from tests.unit.generation.quality.test_near import tiles
from tests.unit.generation.quality.test_texts import PROBLEM

from dpe_jobs.generation.fetching.decoding import decode
from dpe_jobs.generation.quality.reserved import earlier_samples, reserve
from dpe_jobs.questions import MAX_PIXELS, SCHEMA


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    return tiles()[:6]


def look(reserved, image, question="what is this?"):
    return reserved.picture(image) or reserved.question(question)


def no_beat() -> None:
    """Nobody waits."""


def test_a_candidate_with_a_picture_of_the_probe_is_contaminated_and_the_reason_names_the_row(photographs):
    store = MemoryStore()
    rows = [
        replace(world.reserved_question(n), id=f"p-{n}", image=world.png(image)) for n, image in enumerate(photographs)
    ]
    worlds.upload(store, worlds.PROBE_URI, rows)
    with reserve(store, [worlds.PROBE_URI], no_beat) as reserved:
        assert len(reserved) == len(photographs)
        same = look(reserved, photographs[2])
        assert same == ("Contaminated", "the picture is that of probe row p-2")
        mirrored = look(reserved, photographs[3].transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((70, 80)))
        assert mirrored is not None
        assert mirrored.detail.startswith("the picture shows 100% of what that of probe row p-3 shows")
        assert look(reserved, tiles()[8]) is None


def with_alpha(image: Image.Image, mode: str) -> Image.Image:
    """Half of the picture is transparent; beneath it is what was there."""
    seen = image.convert("RGB")
    mask = Image.new("L", seen.size, 255)
    mask.paste(0, (0, 0, seen.width // 2, seen.height))
    seen.putalpha(mask)
    if mode == "LA":
        return Image.merge("LA", (image.convert("L"), mask))
    return seen


def palette_with_a_transparent_colour(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.convert("P", palette=Image.Palette.ADAPTIVE, colors=16).save(out, "PNG", transparency=0)
    return out.getvalue()


TRANSPARENT: dict[str, Callable[[Image.Image], bytes]] = {
    "RGBA": lambda image: world.png(with_alpha(image, "RGBA")),
    "LA": lambda image: world.png(with_alpha(image, "LA")),
    "P": palette_with_a_transparent_colour,
}


@pytest.mark.parametrize("file", TRANSPARENT.values(), ids=TRANSPARENT)
def test_the_same_transparent_file_in_probe_and_pool_is_contaminated(photographs, file):
    store, data = MemoryStore(), file(photographs[2])
    worlds.upload(store, worlds.PROBE_URI, [replace(world.reserved_question(1), id="p-1", image=data)])
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.has_transparency_data
        bare = opened.convert("RGB")
    with reserve(store, [worlds.PROBE_URI], no_beat) as reserved:
        assert look(reserved, decode(data, MAX_PIXELS)) == ("Contaminated", "the picture is that of probe row p-1")
        assert look(reserved, bare) == ("Contaminated", "the picture is that of probe row p-1")


@pytest.mark.parametrize("column", ["absent", "null"])
def test_a_probe_that_an_endpoint_categorises_is_reserved_without_categories(photographs, column, tmp_path):
    rows = [replace(world.reserved_question(1), image=world.png(photographs[0])).row() | {"category": None}]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    store = MemoryStore()
    put(store, table.drop_columns("category") if column == "absent" else table, tmp_path)
    with reserve(store, [worlds.PROBE_URI], no_beat) as reserved:
        assert look(reserved, photographs[0]) is not None


def put(store: MemoryStore, table: pa.Table, folder: Path) -> None:
    pq.write_table(table, folder / "part.parquet")
    store.upload(folder / "part.parquet", f"{worlds.PROBE_URI}/part.parquet")


def test_reserving_beats_at_each_row(photographs):
    store, beats = MemoryStore(), []
    rows = [replace(world.reserved_question(n), image=world.png(photographs[0])) for n in range(3)]
    worlds.upload(store, worlds.PROBE_URI, rows)
    with reserve(store, [worlds.PROBE_URI], lambda: beats.append(None)):
        assert len(beats) == len(rows)


def test_a_long_question_of_the_probe_contaminates_whatever_the_picture(photographs):
    store = MemoryStore()
    row = replace(world.reserved_question(1), image=world.png(photographs[0]), question=PROBLEM)
    worlds.upload(store, worlds.PROBE_URI, [row])
    with reserve(store, [worlds.PROBE_URI], no_beat) as reserved:
        rejection = look(reserved, photographs[1], PROBLEM.replace("Saturday", "Monday"))
        assert rejection is not None
        assert rejection.reason == "Contaminated"
        assert "17 sheep" in rejection.detail


def test_a_long_question_of_a_few_transparent_pictures_stays_reserved(photographs):
    """Each is compared in two ways, and was counted as two questions: so many of one making were a pattern."""
    store = MemoryStore()
    rows = [
        replace(world.reserved_question(n), id=f"p-{n}", image=TRANSPARENT["RGBA"](image), question=PROBLEM)
        for n, image in enumerate(photographs[:5])
    ]
    worlds.upload(store, worlds.PROBE_URI, rows)
    with reserve(store, [worlds.PROBE_URI], no_beat) as reserved:
        assert len(reserved) == 2 * len(rows)
        rejection = reserved.question(PROBLEM)
        assert rejection is not None
        assert rejection.reason == "Contaminated"


def test_samples_of_earlier_rounds_are_found_by_the_lineage_of_the_model(photographs):
    store = MemoryStore()
    samples, trained = "s3://dpe/runs/one/generation", "s3://dpe/runs/one/training/model"
    rows = [replace(world.reserved_question(n), id=f"r0-{n}") for n in range(3)]
    worlds.train(store, trained, worlds.BASE_URI, samples, rows)
    beats: list[None] = []
    found = list(earlier_samples(store, trained, lambda: beats.append(None)))
    assert len(beats) == len(found), "many samples take their time"
    assert [(e.id, e.category, e.question) for e in found] == [(r.id, r.category, r.question) for r in rows]
    assert list(earlier_samples(store, worlds.BASE_URI, no_beat)) == []
