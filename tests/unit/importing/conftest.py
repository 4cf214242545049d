from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.memory_store import MemoryStore

from dpe_jobs.importing import cli
from dpe_jobs.importing.report import ImportReport
from dpe_jobs.importing.run import import_set
from dpe_jobs.questions import Question, read_questions

TO = "s3://dpe/data/mine"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def bring(store: MemoryStore) -> Callable[..., ImportReport]:
    """Import with the flags of a command line, into a bucket unless they say otherwise."""

    def run(source: Path | str, *flags: str, **changes: Any) -> ImportReport:
        to = [] if "--to" in flags or "--check" in flags else ["--to", TO]
        arguments = cli.parser().parse_args([str(source), *to, *flags])
        return import_set(replace(cli.read_options(arguments), **changes), lambda: store)

    return run


@pytest.fixture
def published(store: MemoryStore) -> Callable[..., list[Question]]:
    """What a stage reads of it."""

    def read(uri: str = TO, *, categories: bool = True) -> list[Question]:
        return list(read_questions(store, uri, categories=categories))

    return read
