import tomllib
from pathlib import Path

import pytest
from tests.fakes.memory_store import MemoryStore
from tests.unit.generation import world

from dpe_jobs.store import Store


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry points of pyproject.toml, as an installed distribution has them."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    lines = [f"{name} = {value}" for name, value in project["entry-points"]["dpe.generators"].items()]
    info = tmp_path / "site" / "dpe-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dpe\nVersion: 0\n")
    (info / "entry_points.txt").write_text("\n".join(["[dpe.generators]", *lines]))
    monkeypatch.syspath_prepend(str(info.parent))


@pytest.fixture
def store() -> Store:
    store = MemoryStore()
    world.fill(store)
    return store
