"""Inputs are looked for beyond the first page of a folder."""

import pytest

from dpe_operator import preconditions
from dpe_operator.storage import LISTED


class Storage:
    """One folder with these objects; notes how many were asked for."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self.asked: list[int] = []

    async def names(self, uri: str, limit: int = LISTED) -> list[str]:
        self.asked.append(limit)
        return self._names[:limit]


IMAGES = [f"probe/images/{n:05}.png" for n in range(3000)]


async def problem(storage: Storage) -> preconditions.Problem | None:
    uri = "s3://dpe/probe"
    return await preconditions._folder_problem(storage, "spec.probe.uri", uri, ".parquet", "ProbeNotFound")  # type: ignore[arg-type]


@pytest.mark.parametrize(("names", "lists"), [(["probe/a.parquet", *IMAGES], 1), ([*IMAGES, "probe/rows.parquet"], 2)])
async def test_rows_are_found_also_behind_a_thousand_images(names: list[str], lists: int) -> None:
    storage = Storage(names)
    assert await problem(storage) is None
    assert len(storage.asked) == lists


async def test_a_folder_without_rows_says_so_and_one_that_was_not_read_to_its_end_says_that() -> None:
    found = await problem(Storage(IMAGES))
    assert found is not None
    assert "there is no .parquet file below it" in found.message
    many = [f"probe/images/{n:06}.png" for n in range(preconditions.MOST_LISTED + 5)]
    found = await problem(Storage([*many, "probe/rows.parquet"]))
    assert found is not None
    assert "no .parquet file among the first 20000 objects below it" in found.message
