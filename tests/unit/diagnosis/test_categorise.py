import asyncio
import json
from pathlib import Path

import pytest
from tests.fakes.endpoints import block, endpoint
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import Asked, FakeModel, Reply, Script, serving
from tests.fakes.worlds import COLORS, picture

from dpe_api.artifacts import AnswerType
from dpe_api.diagnosis_spec import TAXONOMY, Categorise
from dpe_jobs import client as client_module
from dpe_jobs.diagnosis.categorise import (
    CATEGORIES,
    POOL_FACTOR,
    Assigned,
    assign,
    presample,
    read_known,
    write_known,
)
from dpe_jobs.ledger import Ledger
from dpe_jobs.questions import Question
from dpe_jobs.runtime import Transient

LEDGER, FOLDER = "s3://dpe/x/ledger/categories", "s3://dpe/earlier/diagnosis"
PLACES = dict(zip((picture(c) for c in COLORS), ("map", "medical", "mixed"), strict=True))


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(client_module, "wait_random_exponential", lambda **_: lambda state: 0.001)


def row(number: int, text: str = "") -> Question:
    image = picture(COLORS[number % len(COLORS)])
    return Question(f"r{number}", image, text or f"{number}: which?", "x", AnswerType.EXACT, "")


def looks(asked: Asked) -> list[str]:
    return [json.dumps({"category": PLACES[asked.image]})]


def categorise(
    model: FakeModel,
    rows: list[Question],
    store: MemoryStore | None = None,
    *,
    known: dict[str, str] | None = None,
    taxonomy: tuple[str, ...] = TAXONOMY,
    limit: float = 0.5,
) -> Assigned:
    settings = Categorise(endpoint="teacher", taxonomy=list(taxonomy))
    with Ledger(store or MemoryStore(), LEDGER) as ledger:
        return asyncio.run(
            assign(endpoint(model), settings, iter(rows), len(rows), ledger, known=known or {}, max_error_rate=limit)
        )


def test_each_row_gets_the_category_that_the_endpoint_sees_in_its_image():
    with serving(looks) as model:
        said = categorise(model, [row(n) for n in range(6)])
        asked = model.requests[0]
    assert said.categories == {f"r{n}": ("map", "medical", "mixed")[n % 3] for n in range(6)}
    assert not said.errors
    schema = asked.body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["category"]["enum"] == list(TAXONOMY)
    assert all(f"- {name}\n" in asked.question for name in TAXONOMY)


TROUBLE: dict[str, Script] = {
    "another category": lambda asked: ['{"category": "birds"}'],
    "prose": lambda asked: ["It is a map."],
    "truncated": lambda asked: ['{"category": "ma'],
    "server error": lambda asked: Reply(status=500),
    "refused": lambda asked: Reply(status=400),
}


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE.keys())
def test_a_failure_is_an_error_and_never_mixed(trouble):
    def script(asked: Asked) -> list[str] | Reply:
        return trouble(asked) if block(asked.question, "question").startswith("1:") else looks(asked)

    with serving(script) as model:
        said = categorise(model, [row(n) for n in range(4)])
    assert said.categories == {"r0": "map", "r2": "mixed", "r3": "map"}
    assert list(said.errors) == ["r1"]


def test_too_many_failures_end_the_stage():
    ends = pytest.raises(Transient, match=r"of 40 rows got no category.*\(4\)")
    with serving(lambda asked: ["no"]) as model, ends:
        categorise(model, [row(n) for n in range(40)], limit=0.1)


def test_the_next_iteration_pays_nothing_for_rows_that_an_earlier_one_saw(tmp_path):
    store, path = MemoryStore(), tmp_path / CATEGORIES
    with serving(looks) as model:
        first = categorise(model, [row(n) for n in range(6)])
        write_known(first.known, path)
        store.upload(path, f"{FOLDER}/{CATEGORIES}")
        again = categorise(model, [row(n) for n in range(3, 9)], known=read_known(store, FOLDER))
        assert len(model.requests) == 6 + 3
    assert again.categories == {f"r{n}": ("map", "medical", "mixed")[n % 3] for n in range(3, 9)}
    assert len(again.known) == 9, "what was known is passed on"


def test_a_restart_pays_for_no_row_twice():
    store = MemoryStore()
    with serving(looks) as model:
        categorise(model, [row(n) for n in range(4)], store)
        said = categorise(model, [row(n) for n in range(6)], store)
        assert len(model.requests) == 6
    assert len(said.categories) == 6


def test_a_row_that_failed_stays_without_category_in_all_attempts_and_is_asked_again_by_the_next_iteration(tmp_path):
    store, path = MemoryStore(), tmp_path / CATEGORIES
    rows = [row(n) for n in range(4)]
    with serving(lambda asked: Reply(status=400) if "1: " in asked.question else looks(asked)) as model:
        first = categorise(model, rows, store)
        assert list(first.errors) == ["r1"]
        model.script = looks
        asked = len(model.requests)
        again = categorise(model, rows, store)
        assert again.categories == first.categories, "the same rows are drawn, and their answers found"
        assert list(again.errors) == ["r1"]
        assert len(model.requests) == asked
        write_known(again.known, path)
        store.upload(path, f"{FOLDER}/{CATEGORIES}")
        later = categorise(model, rows, known=read_known(store, FOLDER))
        assert later.categories.keys() == {"r0", "r1", "r2", "r3"}


def test_another_question_picture_or_taxonomy_is_looked_at_anew():
    with serving(looks) as model:
        known = categorise(model, [row(0)]).known
        for changed in (row(0, "another?"), Question("r0", picture("red", 9), "0: which?", "x", AnswerType.EXACT, "")):
            model.script = lambda asked: ['{"category": "map"}']
            asked = len(model.requests)
            categorise(model, [changed], known=known)
            assert len(model.requests) == asked + 1
        asked = len(model.requests)
        categorise(model, [row(0)], known=known, taxonomy=("map", "other"))
        assert len(model.requests) == asked + 1


def test_rows_that_are_the_same_under_other_ids_are_looked_at_once_known():
    with serving(looks) as model:
        known = categorise(model, [row(0, "same?")]).known
        said = categorise(model, [row(3, "same?")], known=known)
        assert len(model.requests) == 1
    assert said.categories == {"r3": "map"}


def test_without_an_earlier_diagnosis_nothing_is_known():
    assert read_known(MemoryStore(), None) == read_known(MemoryStore(), FOLDER) == {}


def test_equal_knowledge_is_an_equal_file(tmp_path: Path):
    write_known({"b": "map", "a": "mixed"}, tmp_path / "one")
    write_known({"a": "mixed", "b": "map"}, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_presample_is_bounded_and_the_same_for_all_rounds_and_orders():
    ids = [f"row-{n}" for n in range(5000)]
    chosen = presample(ids, 20)
    assert len(chosen) == 20 * POOL_FACTOR
    assert presample(reversed(ids), 20) == chosen
    assert presample(ids[:50], 20) == frozenset(ids[:50])


def test_when_rows_are_left_out_the_others_of_the_presample_stay():
    ids = [f"row-{n}" for n in range(5000)]
    chosen = presample(ids, 20)
    gone = set(sorted(chosen)[:30])
    after = presample((i for i in ids if i not in gone), 20)
    assert chosen - gone <= after
    assert len(after) == len(chosen)
