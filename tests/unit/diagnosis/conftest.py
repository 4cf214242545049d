from pathlib import Path

import pytest
from tests.fakes import entry_points


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry_points.install(tmp_path, monkeypatch)
