import hashlib
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.fakes import worlds
from tests.fakes.memory_store import MemoryStore

from dpe_api.artifacts import InputRef, IterationId, Manifest, OutputFile
from dpe_api.names import Exit
from dpe_jobs.generation.samples import SAMPLE_SCHEMA
from dpe_jobs.lineage import cli
from dpe_jobs.lineage.walk import walk
from dpe_jobs.store import NotFound

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROOT = "s3://dpe/lab/shapes-{}-0123abcd"


def model(number: int) -> str:
    return f"{ROOT.format(number)}/training/model"


def publish(
    store: MemoryStore, uri: str, stage: str, inputs: list[str], outputs: list[OutputFile] | None = None
) -> None:
    own = IterationId(namespace="lab", name="shapes", uid="0123abcd-1")
    refs = [InputRef(uri=i, sha256=hashlib.sha256(i.encode()).hexdigest()) for i in inputs]
    versions = {"torch": "2.13.0"} if stage == "model" else {}
    store.publish(
        uri,
        Manifest(
            stage=stage,
            attempt=2,
            iteration=own,
            created_at=NOW,
            inputs=refs,
            outputs=outputs or [],
            seed=7,
            versions=versions,
        ),
    )


def sample(number: int, category: str, examples: list[str]) -> dict:
    row = worlds.question(number, category).row()
    return row | {
        "target": {"category": category, "weakness": ""},
        "provenance": {"diagnosis_ids": examples, "tool_calls": [], "source_url": None},
        "pass_rate": 0.5,
        "rollouts": [],
        "retention": False,
    }


def train(store: MemoryStore, number: int, base: str, samples: list[dict]) -> None:
    data = f"{ROOT.format(number)}/generation"
    with TemporaryDirectory() as folder:
        path = Path(folder) / "part-00000.parquet"
        pq.write_table(pa.Table.from_pylist(samples, schema=SAMPLE_SCHEMA), path)
        output = store.upload(path, f"{data}/samples/{path.name}")
    outputs = [output.model_copy(update={"path": f"samples/{output.path}"})]
    diagnosis = f"{ROOT.format(number)}/diagnosis"
    publish(store, diagnosis, "diagnosis", [base])
    publish(store, data, "generation", [base, diagnosis], outputs)
    publish(store, model(number), "model", [base, data])


@pytest.fixture
def store() -> MemoryStore:
    """A base without a manifest, and two rounds of training from it."""
    store = MemoryStore()
    worlds.fill(store)
    store.put(f"{worlds.BASE_URI}/config.json", b"{}")
    train(store, 1, worlds.BASE_URI, [sample(n, "color", ["probe-1", "probe-2"]) for n in range(3)])
    train(store, 2, model(1), [sample(5, "hue", ["probe-3"]), sample(6, "hue", []), sample(7, "color", ["probe-1"])])
    return store


def told(store: MemoryStore, uri: str, *, samples: bool = False) -> str:
    return "\n".join(cli.lines(store, uri, samples=samples))


def test_the_walk_goes_from_the_model_to_the_base_and_meets_each_artifact_once(store):
    found = [(a.uri, a.is_data, a.gone) for a in walk(store, model(2))]
    assert found == [
        (model(2), False, False),
        (model(1), False, False),
        (f"{ROOT.format(2)}/generation", True, False),
        (worlds.BASE_URI, False, False),
        (f"{ROOT.format(1)}/generation", True, False),
    ]


def test_samples_are_counted_with_the_diagnosis_examples_that_asked_for_them(store):
    text = told(store, model(2))
    assert "hue: 2 samples, asked for by 1 diagnosis examples" in text
    assert "color: 1 samples, asked for by 1 diagnosis examples" in text
    assert "color: 3 samples, asked for by 2 diagnosis examples" in text
    assert f"asked for by {ROOT.format(1)}/diagnosis" in text
    assert f"trained from {worlds.BASE_URI}" in text
    assert "a base: it has no manifest" in text
    assert "versions: torch 2.13.0" in text
    assert "by iteration lab/shapes (0123abcd-1), attempt 2, 2026-01-01 00:00:00, seed 7" in text


def test_every_sample_is_listed_on_request(store):
    listed = [line for line in told(store, model(2), samples=True).splitlines() if "asked for by probe" in line]
    assert len(listed) == 5
    assert any("[hue] hue 5: what color is it? -> blue; pass rate 0.50 asked for by probe-3" in line for line in listed)


def test_the_folder_of_an_iteration_stands_for_the_model_that_it_trained(store):
    assert told(store, ROOT.format(2)) == told(store, model(2))


def test_what_is_gone_is_told(store):
    for item in store.list(model(1)):
        store.delete([item.uri])
    assert "it is gone: nothing is known of what is behind it" in told(store, model(2))


def test_an_ancestor_whose_bucket_is_gone_is_gone_as_well(store, monkeypatch):
    for item in store.list(model(1)):
        store.delete([item.uri])
    known = store.list

    def listed(uri):
        if uri == model(1):
            raise NotFound(f"{uri} does not exist (NoSuchBucket)")
        return known(uri)

    monkeypatch.setattr(store, "list", listed)
    assert "it is gone: nothing is known of what is behind it" in told(store, model(2))


def test_what_a_model_wrote_does_not_steer_the_terminal(store):
    train(store, 3, model(2), [sample(1, "hue", []) | {"question": "what\x1b[2J is\nthis?"}])
    assert "\x1b" not in told(store, model(3), samples=True)
    assert "what [2J is this?" in told(store, model(3), samples=True)


def test_the_command_prints_it_or_says_what_is_missing(store, monkeypatch, capsys):
    monkeypatch.setattr(cli, "connect", lambda _region: store)
    assert cli.main([model(2)]) is Exit.DONE
    assert "samples, asked for by" in capsys.readouterr().out
    assert cli.main(["s3://dpe/nothing"]) is Exit.BAD_DATA
    assert "s3://dpe/nothing holds no model" in capsys.readouterr().err
    assert cli.main(["models/base"]) is Exit.BAD_CONFIG
    assert "models/base" in capsys.readouterr().err
