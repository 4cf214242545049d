import threading

import pytest
from tests.fakes.memory_store import MemoryStore
from tests.memory import growth

from dpe_jobs import ledger as module
from dpe_jobs.ledger import Ledger
from dpe_jobs.runtime import Stopped
from dpe_jobs.store import StoreUnreachable

FOLDER = "s3://dpe/x/ledger"


def parts(store: MemoryStore) -> list[str]:
    return [u for u in store.objects if u.startswith(FOLDER)]


def test_a_later_attempt_finds_what_an_earlier_one_finished():
    store = MemoryStore()
    with Ledger(store, FOLDER) as first:
        first.append({"id": "a", "text": "ä\n\u2028"})
    with Ledger(store, FOLDER) as second:
        assert second.resumed == 1
        assert "a" in second
        assert second["a"]["text"] == "ä\n\u2028"
        second.append({"id": "b"})
    third = Ledger(store, FOLDER)
    assert {row["id"] for row in third} == {"a", "b"}
    assert len(parts(store)) == 2, "attempts never overwrite each other's parts"


def test_the_first_row_of_an_id_wins():
    store = MemoryStore()
    with Ledger(store, FOLDER) as ledger:
        ledger.append({"id": "a", "n": 1})
        ledger.append({"id": "a", "n": 2})
    assert Ledger(store, FOLDER)["a"]["n"] == 1
    assert Ledger(store, FOLDER).get("b") is None


def test_a_lost_pod_loses_less_than_fifty_items():
    store = MemoryStore()
    ledger = Ledger(store, FOLDER)
    for i in range(149):
        ledger.append({"id": str(i)})
    assert len(Ledger(store, FOLDER)) == 100


def test_a_slow_stage_flushes_by_time(monkeypatch):
    store, now = MemoryStore(), [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    ledger = Ledger(store, FOLDER)
    ledger.append({"id": "a"})
    assert parts(store) == []
    now[0] = 30.0
    ledger.append({"id": "b"})
    assert len(Ledger(store, FOLDER)) == 2


def test_a_stopped_stage_flushes_what_it_has():
    store = MemoryStore()

    def stage() -> None:
        with Ledger(store, FOLDER) as ledger:
            ledger.append({"id": "a"})
            raise Stopped

    with pytest.raises(Stopped):
        stage()
    assert "a" in Ledger(store, FOLDER)


def test_trouble_of_the_store_does_not_hide_why_the_stage_ends():
    store = MemoryStore()

    def stage() -> None:
        with Ledger(store, FOLDER) as ledger:
            ledger.append({"id": "a"})
            store.down = True
            raise ValueError("the real reason")

    with pytest.raises(ValueError, match="the real reason"):
        stage()


def test_a_failed_flush_loses_nothing():
    store = MemoryStore()
    ledger = Ledger(store, FOLDER)
    ledger.append({"id": "a"})
    store.down = True
    with pytest.raises(StoreUnreachable):
        ledger.flush()
    store.down = False
    ledger.append({"id": "b"})
    ledger.flush()
    assert {row["id"] for row in Ledger(store, FOLDER)} == {"a", "b"}


def test_threads_append_without_loss():
    store = MemoryStore()
    with Ledger(store, FOLDER) as ledger:
        threads = [
            threading.Thread(target=lambda k=k: [ledger.append({"id": f"{k}-{i}"}) for i in range(100)])
            for k in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = [line for uri in parts(store) for line in store.objects[uri].splitlines()]
    assert len(lines) == len(set(lines)) == 400


def test_rows_are_taken_in_while_a_part_is_put(monkeypatch):
    store = MemoryStore()
    started, go_on = threading.Event(), threading.Event()
    put = store.put

    def slow_put(uri: str, data: bytes) -> None:
        started.set()
        assert go_on.wait(10)
        put(uri, data)

    monkeypatch.setattr(store, "put", slow_put)
    with Ledger(store, FOLDER) as ledger:
        ledger.append({"id": "a"})
        flushing = threading.Thread(target=ledger.flush)
        flushing.start()
        assert started.wait(10)
        ledger.append({"id": "b"})
        assert "b" in ledger
        go_on.set()
        flushing.join()
    assert {row["id"] for row in Ledger(store, FOLDER)} == {"a", "b"}


def test_all_rows_are_read_in_the_order_of_their_coming_while_others_come():
    store = MemoryStore()
    with Ledger(store, FOLDER) as ledger:
        for i in range(600):
            ledger.append({"id": f"{(7 * i) % 600}", "n": i})
        rows = iter(ledger)
        first = next(rows)
        ledger.append({"id": "later"})
        assert [row["n"] for row in (first, *rows)] == list(range(600))
        with pytest.raises(KeyError, match="unknown"):
            ledger["unknown"]


def test_memory_does_not_grow_with_the_rows(monkeypatch):
    store = MemoryStore()
    monkeypatch.setattr(store, "put", lambda uri, data: None)

    def take_in(numbers: range) -> None:
        for number in numbers:
            ledger.append({"id": f"{number}", "rollouts": [f"{number} {'x' * 80}"] * 9})

    with Ledger(store, FOLDER) as ledger:
        take_in(range(4000))
        grown = growth(lambda: take_in(range(4000, 14_000)))
        assert len(ledger) == 14_000
        assert ledger["7"]["rollouts"][0].startswith("7 ")
    assert grown < 10_000 * 200, "bytes: less than the rollouts, of 700 bytes each row"
