import io
import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.fakes import worlds
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import Asked, Reply, serving
from tests.unit.generation import world

from dpe_api.artifacts import InputRef
from dpe_jobs.diagnosis import report
from dpe_jobs.diagnosis.items import ITEMS
from dpe_jobs.generation import samples as sample_files
from dpe_jobs.generation.run import run, solver_fingerprint
from dpe_jobs.generation.samples import SAMPLE_SCHEMA
from dpe_jobs.questions import read_questions
from dpe_jobs.runtime import BadConfig, BadData, Stopped, Transient
from dpe_jobs.store import AlreadyPublished, NotFound


def published(store: MemoryStore) -> tuple[dict[str, str], list[dict[str, object]]]:
    """Sample files byte for byte, and rejections; how many are begun beyond the need depends on who was faster."""
    manifest = store.manifest(world.OUT)
    assert manifest is not None
    rejected = [row for row in world.table(store, "rejected.parquet") if row["reason"] != "Surplus"]
    return {o.path: o.sha256 for o in manifest.outputs if o.path.startswith("samples/")}, rejected


def reference() -> MemoryStore:
    store = MemoryStore()
    world.fill(store)
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url), store)
    return store


def test_every_candidate_is_kept_or_rejected_for_a_reason_and_quotas_are_met(store):
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url), store)
    said = world.summary(store)
    kept, rejected = world.samples(store), world.table(store, "rejected.parquet")
    assert (said.kept, said.shortfall, said.target) == (22, 0, 22)
    assert len(kept) == said.kept
    assert said.candidates == len(kept) + len(rejected)
    assert sum(said.rejected.values()) == len(rejected)
    assert all(row["reason"] and row["detail"] for row in rejected if row["reason"] != "Surplus")
    assert {r["reason"] for r in rejected} <= {"TooHard", "TooEasy", "Surplus", "Duplicate", "NearDuplicate"}
    for category in said.categories:
        assert category.quota == world.QUOTAS[category.name] == category.kept
        assert category.kept == sum(row["category"] == category.name for row in kept)
    assert len({row["id"] for row in kept + rejected}) == said.candidates
    assert said.tokens.prompt == 10 * len(model.requests)
    assert said.sources == {"render:shapes": 22}


def test_kept_samples_lie_in_the_band_and_strong_categories_bypass_it(store):
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url), store)
        asked = {a.question for a in model.requests}
    for row in world.samples(store):
        if row["category"] in world.STRONG:
            assert (row["retention"], row["pass_rate"], row["rollouts"]) == (True, None, [])
        else:
            assert 0.3 <= row["pass_rate"] <= 0.8
            assert row["pass_rate"] == sum(row["answer"] in text for text in row["rollouts"]) / 9
    assert asked, "weak categories are solved by the model"


def test_samples_carry_target_and_provenance_and_read_as_questions(store):
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url), store)
    row = next(r for r in world.samples(store) if r["category"] == "color_fine" and r["answer"] == "teal")
    assert row["target"]["category"] == "color_fine"
    assert row["target"]["weakness"].startswith("accuracy 0.50 [0.40, 0.60] on 20 probe questions")
    assert row["provenance"]["diagnosis_ids"][0] == "color_fine-teal", "the failure most like it comes first"
    assert "color_fine-red" not in row["provenance"]["diagnosis_ids"], "answered rightly"
    (call,) = map(json.loads, row["provenance"]["tool_calls"])
    assert (call["tool"], call["arguments"]["color"]) == ("render:shapes", "teal")
    assert [origin["source"] for origin in row["provenance"]["origins"]] == ["render:shapes"]
    assert len(list(read_questions(store, f"{world.OUT}/samples"))) == 22


def test_samples_open_in_datasets_with_images_as_images(store, tmp_path):
    datasets = pytest.importorskip("datasets")
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url), store)
    path = tmp_path / "part.parquet"
    store.download(f"{world.OUT}/samples/001-00000.parquet", path)
    rows = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert rows.column_names == SAMPLE_SCHEMA.names
    assert rows[0]["image"].size == (64, 64)


def test_parts_are_cut_and_together_hold_every_sample_once(store, monkeypatch):
    monkeypatch.setattr(sample_files, "PART_ROWS", 5)
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url), store)
    parts = sorted(published(store)[0])
    assert parts == [f"samples/00{c}-0000{i}.parquet" for c, i in [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]]
    assert [len(world.table(store, p)) for p in parts] == [4, 5, 5, 2, 5, 1]


@pytest.mark.parametrize("at", [1, 12, 22])
def test_a_lost_generation_pays_for_no_candidate_twice_and_keeps_the_same_samples(store, at):
    def dies(asked: Asked) -> list[str] | Reply:
        return Reply(status=400) if asked.number >= at else world.solves(0.5)(asked)

    with serving(dies) as model:
        # one at a time: what is in flight when a pod is lost is lost with it
        with pytest.raises(Transient, match="got no answer"):
            run(world.launch(model.url, concurrency=1, max_error_rate=0), store)
        paid = {a.body["seed"] for a in model.requests[:at]}
    assert store.manifest(world.OUT) is None
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url, attempt=2), store)
        assert not paid & {a.body["seed"] for a in model.requests}
    assert published(store) == published(reference())


def test_sigterm_flushes_the_ledger_and_the_next_attempt_goes_on_from_there(store):
    def stopped(asked: Asked) -> list[str]:
        if asked.number == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        return world.solves(0.5)(asked)

    assert threading.current_thread() is threading.main_thread()
    with serving(stopped) as model:
        with pytest.raises(Stopped):
            run(world.launch(model.url), store)
        first = {a.body["seed"] for a in model.requests}
    flushed = sum(len(d.splitlines()) for u, d in store.objects.items() if "/ledger/" in u)
    assert flushed >= 15
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url, attempt=2), store)
        second = {a.body["seed"] for a in model.requests}
    assert len(first & second) <= len(first) - flushed, "asked again is only what was in flight"
    assert published(store) == published(reference())


def test_parts_that_only_an_earlier_attempt_had_are_removed(store):
    store.put(f"{world.OUT}/samples/000-00007.parquet", b"left behind")
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url), store)
    there = [o.uri.removeprefix(f"{world.OUT}/") for o in store.list(f"{world.OUT}/samples")]
    assert there == [f"samples/00{category}-00000.parquet" for category in range(3)]


def test_answers_of_other_weights_are_not_found_in_the_ledger(store):
    with serving(lambda asked: Reply(status=400) if asked.number > 9 else world.solves(0.5)(asked)) as model:
        with pytest.raises(Transient):
            run(world.launch(model.url), store)
        first = {a.body["seed"] for a in model.requests[:10]}
    store.put(f"{worlds.BASE_URI}/model.safetensors", b"other weights")
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url, attempt=2), store)
        assert first <= {a.body["seed"] for a in model.requests}


def test_answers_of_a_server_that_was_started_otherwise_are_not_found_in_the_ledger(store, monkeypatch):
    """As when the release is upgraded while a generation is away: all of it ends as one that was never interrupted."""
    with serving(lambda asked: Reply(status=400) if asked.number > 9 else world.solves(0.5)(asked)) as model:
        with pytest.raises(Transient):
            run(world.launch(model.url), store)
        first = {a.body["seed"] for a in model.requests[:10]}
    monkeypatch.setattr(report, "SERVED_SINCE", report.SERVED_SINCE + 1)
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url, attempt=2), store)
        assert first <= {a.body["seed"] for a in model.requests}
    assert published(store) == published(reference())


def test_ledgers_of_rollouts_tell_apart_what_decides_a_servers_answers():
    launch, base = world.launch("http://model"), InputRef(uri=worlds.BASE_URI, sha256="0")
    served = [launch.model.model_copy(update=u) for u in ({}, {"extra_args": ["--seed", "3"]}, {"max_model_len": 512})]
    names = {solver_fingerprint(launch.model_copy(update={"model": model}), base) for model in served}
    assert len(names) == len(served)
    elsewhere = launch.model_copy(update={"model": launch.model.model_copy(update={"url": "http://another"})})
    assert solver_fingerprint(elsewhere, base) in names


def test_no_more_requests_are_in_flight_than_allowed(store):
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url, concurrency=2), store)
        assert model.most_in_flight <= 2


def test_too_many_requests_without_an_answer_stop_the_stage(store):
    with serving(lambda asked: Reply(status=400)) as model:
        with pytest.raises(Transient) as caught:
            run(world.launch(model.url), store)
        assert len(model.requests) < 10
    assert caught.value.reason == "ErrorRate"
    assert "maxErrorRate" in str(caught.value)


def test_a_request_without_an_answer_rejects_the_candidate_as_an_error_not_as_too_hard(store):
    def once(asked: Asked) -> list[str] | Reply:
        return Reply(status=400, body=b"too long") if asked.number == 3 else world.solves(0.5)(asked)

    with serving(once) as model:
        run(world.launch(model.url, max_error_rate=0.2), store)
    (row,) = [r for r in world.table(store, "rejected.parquet") if r["reason"] == "RequestFailed"]
    assert "too long" in row["detail"]
    assert row["pass_rate"] is None
    assert world.summary(store).kept == 22


def test_pictures_of_probe_and_benchmarks_are_never_trained_on_however_they_were_changed(store):
    known = {target_of(row): row for row in world.samples(reference())}
    stolen = []
    for number, (row, change) in enumerate(zip(known.values(), changes(), strict=True)):
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            changed = change(image.convert("RGB"))
        stolen.append(replace(world.reserved_question(number), image=world.png(changed)))
    worlds.upload(store, worlds.PROBE_URI, stolen[::2])
    worlds.upload(store, worlds.TEST_URI, stolen[1::2])
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url, decontaminate=[worlds.PROBE_URI, worlds.TEST_URI]), store)
    assert not known.keys() & {target_of(row) for row in world.samples(store)}
    rejected = {target_of(r): r for r in world.table(store, "rejected.parquet") if target_of(r) in known}
    assert rejected.keys() == known.keys()
    assert {r["question"] for r in rejected.values()} == {None}, "nobody was asked for one"
    assert {r["reason"] for r in rejected.values()} == {"Contaminated"}
    assert {r["detail"].split(" row ")[0].rsplit(" ", 1)[1] for r in rejected.values()} == {"probe", "test"}


def target_of(row: dict[str, Any]) -> str:
    """The part of its id that names no content."""
    return str(row["id"]).rsplit("-", 1)[0]


Change = Callable[[Image.Image], Image.Image]


def changes() -> list[Change]:
    """22 of them: none, each kind, and each kind after another one."""
    resized: list[Change] = [
        lambda i: i.resize((32, 32), Image.Resampling.NEAREST),
        lambda i: i.resize((48, 48), Image.Resampling.BICUBIC),
        lambda i: i.resize((128, 128), Image.Resampling.BOX),
    ]
    turned: list[Change] = [partial(turn, how=how) for how in Image.Transpose][:3]
    stored: list[Change] = [partial(saved, form=form, quality=50) for form in ("JPEG", "WEBP")]
    pairs = [(resized, turned), (resized, stored), (turned, stored[:1])]
    twice = [after(first, second) for one, other in pairs for first in one for second in other][:13]
    return [lambda i: i, *resized, *turned, *stored, *twice]


def after(first: Change, second: Change) -> Change:
    return lambda image: second(first(image))


def turn(image: Image.Image, how: Image.Transpose) -> Image.Image:
    return image.transpose(how)


def saved(image: Image.Image, form: str, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, form, quality=quality)
    return Image.open(out)


def test_shortfall_is_reported_by_category_and_reason():
    store = MemoryStore()
    world.fill(store, {"color": 4, "shape": 10, "reading": 8})
    with serving(world.solves(-2.0)) as model:
        run(world.launch(model.url), store)
    said = world.summary(store)
    by_name = {c.name: c for c in said.categories}
    assert (said.kept, said.shortfall) == (4, 18)
    assert (by_name["shape"].rejected, by_name["shape"].shortfall_reason) == ({"TooHard": 100}, "MaxCandidates")
    assert (by_name["reading"].candidates, by_name["reading"].shortfall_reason) == (0, "NoGenerator")


def test_nothing_kept_at_all_is_bad_data_and_says_what_to_widen():
    store = MemoryStore()
    world.fill(store, {"shape": 10})
    with serving(world.solves(-2.0)) as model, pytest.raises(BadData, match=r"100 TooHard.*widen") as caught:
        run(world.launch(model.url, generation={"target_samples": 10, "max_candidates": 100}), store)
    assert caught.value.reason == "NoSamples"
    assert store.manifest(world.OUT) is None


def test_nothing_rejected_publishes_an_empty_table_of_rejections():
    store = MemoryStore()
    world.fill(store, {"color": 6})
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url), store)
        assert not model.requests, "a strong category is not asked"
    assert world.table(store, "rejected.parquet") == []
    assert len(world.samples(store)) == 6


def test_unknown_program_is_bad_configuration(store):
    with pytest.raises(BadConfig, match="murals"):
        run(world.launch("http://x", generation={"sources": [{"kind": "render", "program": "murals"}]}), store)


def test_a_probe_that_an_endpoint_categorised_needs_no_column_for_it(store, tmp_path):
    path = tmp_path / "part-0.parquet"
    store.download(f"{worlds.PROBE_URI}/part-0.parquet", path)
    pq.write_table(pq.read_table(path).drop_columns("category"), path)
    store.upload(path, f"{worlds.PROBE_URI}/part-0.parquet")
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url), store)
    assert world.summary(store).kept == 22


class Watched(MemoryStore):
    """Notes for each probe file whether anybody had been told yet that the stage goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bool] = []

    def download(self, uri: str, path: Path, sha256: str | None = None) -> None:
        if uri.startswith(worlds.PROBE_URI):
            self.told.append(f"{world.OUT}/progress.json" in self.objects)
        super().download(uri, path, sha256)


def test_progress_is_told_before_the_question_sets_are_read():
    store = Watched()
    world.fill(store)
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url), store)
    assert store.told[0]


def test_a_missing_diagnosis_names_its_address(store):
    store.delete([f"{world.DIAGNOSIS}/{ITEMS}"])
    with pytest.raises(NotFound, match=r"diagnosis/items\.parquet"):
        run(world.launch("http://x"), store)


def test_an_attempt_that_comes_second_leaves_the_samples_of_the_first_as_they_are(store, monkeypatch):
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url), store)
        before = {uri: data for uri, data in store.objects.items() if uri.endswith((".parquet", ".html", ".md"))}
        looks = iter([None])  # at its start nothing was published
        found = store.manifest
        monkeypatch.setattr(
            store, "manifest", lambda folder: next(looks, found(folder)) if folder == world.OUT else found(folder)
        )
        with pytest.raises(AlreadyPublished, match="another attempt came first"):
            run(world.launch(model.url, attempt=2, seed=8), store)
    assert {uri: store.objects.get(uri) for uri in before} == before


def test_published_generation_is_not_made_again(store):
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url), store)
        asked = len(model.requests)
        run(world.launch(model.url, attempt=2), store)
        assert len(model.requests) == asked
