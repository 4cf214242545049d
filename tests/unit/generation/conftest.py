from pathlib import Path

import pytest
from tests.fakes import entry_points
from tests.fakes.memory_store import MemoryStore
from tests.unit.generation import world

from dpe_jobs.store import Store


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry_points.install(tmp_path, monkeypatch)


@pytest.fixture
def store() -> Store:
    store = MemoryStore()
    world.fill(store)
    return store
