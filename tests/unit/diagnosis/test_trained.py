import hashlib
import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image
from tests.fakes import worlds
from tests.fakes.memory_store import MemoryStore

from dpe_api.artifacts import InputRef, Manifest, OutputFile
from dpe_api.diagnosis_spec import Probe
from dpe_jobs.diagnosis.sample import QuestionSet, sample_probe, survey
from dpe_jobs.diagnosis.trained import Trained, nothing, trained_on
from dpe_jobs.questions import Question
from dpe_jobs.runtime import BadData

ROUND = "s3://dpe/team/round-{}"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def sample(number: int, color: str = "cyan") -> Question:
    row = worlds.question(number, "hue")
    return replace(row, id=f"sample-{number}", image=worlds.picture(color, 30 + number))


@pytest.fixture
def store() -> MemoryStore:
    """A base, and two rounds of training from it."""
    store = MemoryStore()
    worlds.fill(store)
    worlds.train(store, model(0), worlds.BASE_URI, f"{ROUND.format(0)}/generation", [sample(0), sample(1)])
    worlds.train(store, model(1), model(0), f"{ROUND.format(1)}/generation", [sample(2)])
    return store


def sampled(store: MemoryStore, probe: Probe, trained: Trained, folder: Path) -> QuestionSet:
    seen = survey(store, probe.uri, trained, categories=True)
    return sample_probe(store, probe, seen, seen.categories, 0, 3, 1, folder)


def model(number: int) -> str:
    return f"{ROUND.format(number)}/training/model"


def bmp(png: bytes) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).save(out, "BMP")
    return out.getvalue()


def test_samples_of_all_rounds_are_found_back_to_the_base(store):
    found = trained_on(store, model(1))
    assert len(found) == 3
    assert all(found.holds("other", sample(n).image) for n in range(3))
    assert not found.holds("other", sample(3).image)
    assert len(trained_on(store, model(0))) == 2
    assert len(trained_on(store, worlds.BASE_URI)) == 0


def test_a_picture_is_known_by_its_pixels_however_it_is_encoded(store):
    found = trained_on(store, model(1))
    assert found.holds("other", bmp(sample(2).image))
    assert not found.holds("other", worlds.picture("cyan", 33))


def test_a_row_is_known_by_its_id_too(store):
    assert trained_on(store, model(1)).holds("sample-1", worlds.picture("black"))
    assert not nothing().holds("sample-1", b"no picture at all")


def test_what_a_generation_read_or_rejected_trained_nobody(store):
    folder = f"{ROUND.format(1)}/generation"
    manifest = store.manifest(folder)
    assert manifest is not None
    worlds.upload(store, f"{folder}/aside", [sample(7)])
    aside = manifest.outputs[0].model_copy(update={"path": "aside/part-0.parquet"})
    inputs = [InputRef(uri=worlds.PROBE_URI, sha256="")]
    store.publish(worlds.PROBE_URI, Manifest(stage="dataset", created_at=NOW, outputs=manifest.outputs))
    store.delete([f"{folder}/manifest.json"])
    store.publish(folder, manifest.model_copy(update={"outputs": [*manifest.outputs, aside], "inputs": inputs}))
    found = trained_on(store, model(1))
    assert len(found) == 3
    assert not found.holds("other", sample(7).image)


def test_a_base_says_what_data_set_it_was_trained_on(store):
    digest = hashlib.sha256(store.get(f"{worlds.TEST_URI}/part-0.parquet")).hexdigest()
    output = OutputFile(path="part-0.parquet", size=1, sha256=digest, media_type="")
    store.publish(worlds.TEST_URI, Manifest(stage="dataset", created_at=NOW, outputs=[output]))
    inputs = [InputRef(uri=worlds.TEST_URI, sha256="")]
    store.publish(worlds.BASE_URI, Manifest(stage="model", created_at=NOW, inputs=inputs))
    assert trained_on(store, model(1)).holds("color-3", b"")


def test_models_that_name_each_other_are_walked_once(store):
    store.publish(worlds.BASE_URI, Manifest(stage="model", created_at=NOW, inputs=[InputRef(uri=model(1), sha256="")]))
    assert len(trained_on(store, model(1))) == 3


def test_samples_that_are_gone_are_told(store, caplog):
    store.delete([u for u in store.objects if u.startswith(f"{ROUND.format(0)}/generation")])
    assert len(trained_on(store, model(1))) == 1
    assert "round-0/generation trained" in caplog.text


def test_a_sample_holds_no_row_that_trained_the_model_and_counts_them(store, tmp_path):
    rows = [*worlds.questions(3), *(replace(sample(n), id=f"probe-{n}") for n in range(3))]
    worlds.upload(store, worlds.PROBE_URI, rows)
    probe = Probe(uri=worlds.PROBE_URI, sample_size=100)
    found = sampled(store, probe, trained_on(store, model(1)), tmp_path)
    assert set(found.ids) == {q.id for q in worlds.questions(3)}
    assert found.excluded == 3


def test_a_category_of_which_nothing_is_left_is_still_named(store, tmp_path):
    rows = [worlds.question(0, "color"), replace(sample(0), id="probe-0")]
    worlds.upload(store, worlds.PROBE_URI, rows)
    probe = Probe(uri=worlds.PROBE_URI, sample_size=100)
    found = sampled(store, probe, trained_on(store, model(1)), tmp_path)
    assert (found.ids, found.categories) == (("color-0",), ("color", "hue"))


def test_a_probe_of_which_nothing_is_left_is_refused(store, tmp_path):
    worlds.upload(store, worlds.PROBE_URI, [replace(sample(n), id=f"probe-{n}") for n in range(3)])
    probe = Probe(uri=worlds.PROBE_URI, sample_size=100)
    with pytest.raises(BadData, match="all 3 rows of s3://dpe/data/probe trained the model: add rows") as caught:
        sampled(store, probe, trained_on(store, model(1)), tmp_path)
    assert caught.value.reason == "ProbeExhausted"
