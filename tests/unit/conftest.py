"""What unit tests must not leave behind for each other."""

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def sigterm_as_it_was() -> Iterator[None]:
    """A stage that ends ignores SIGTERM; child processes of later tests would inherit that."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
