from dataclasses import replace

import pytest
from PIL import Image
from tests.fakes import worlds
from tests.fakes.memory_store import MemoryStore
from tests.unit.generation import world
from tests.unit.generation.quality.test_near import tiles
from tests.unit.generation.quality.test_texts import PROBLEM

from dpe_jobs.generation.dedup import pixel_digest
from dpe_jobs.generation.quality.reserved import earlier_samples, reserve


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    return tiles()[:6]


def look(reserved, image, question="what is this?"):
    return reserved.look(pixel_digest(image), image, question)


def test_a_candidate_with_a_picture_of_the_probe_is_contaminated_and_the_reason_names_the_row(photographs):
    store = MemoryStore()
    rows = [
        replace(world.reserved_question(n), id=f"p-{n}", image=world.png(image)) for n, image in enumerate(photographs)
    ]
    worlds.upload(store, worlds.PROBE_URI, rows)
    with reserve(store, [worlds.PROBE_URI]) as reserved:
        assert len(reserved) == len(photographs)
        same = look(reserved, photographs[2])
        assert same == ("Contaminated", "the picture is that of probe row p-2")
        mirrored = look(reserved, photographs[3].transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((70, 80)))
        assert mirrored is not None
        assert mirrored.detail.startswith("the picture shows 100% of what that of probe row p-3 shows")
        assert look(reserved, tiles()[8]) is None


def test_a_long_question_of_the_probe_contaminates_whatever_the_picture(photographs):
    store = MemoryStore()
    row = replace(world.reserved_question(1), image=world.png(photographs[0]), question=PROBLEM)
    worlds.upload(store, worlds.PROBE_URI, [row])
    with reserve(store, [worlds.PROBE_URI]) as reserved:
        rejection = look(reserved, photographs[1], PROBLEM.replace("Saturday", "Monday"))
        assert rejection is not None
        assert rejection.reason == "Contaminated"
        assert "17 sheep" in rejection.detail


def test_samples_of_earlier_rounds_are_found_by_the_lineage_of_the_model(photographs):
    store = MemoryStore()
    samples, trained = "s3://dpe/runs/one/generation", "s3://dpe/runs/one/training/model"
    rows = [replace(world.reserved_question(n), id=f"r0-{n}") for n in range(3)]
    worlds.train(store, trained, worlds.BASE_URI, samples, rows)
    found = list(earlier_samples(store, trained))
    assert [(e.id, e.category, e.question) for e in found] == [(r.id, r.category, r.question) for r in rows]
    assert list(earlier_samples(store, worlds.BASE_URI)) == []
