"""gallery.html in a real browser, from the disk, without a network."""

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from tests.browser import diagnosed
from tests.browser.chromium import complaints, look, table
from tests.browser.test_report_page import HOSTILE
from tests.fakes import worlds
from tests.fakes.memory_store import MemoryStore
from tests.unit.generation import world

from dpe_api.artifacts import CategorySamples, GenerationSummary
from dpe_jobs.diagnosis.failures import shrink
from dpe_jobs.diagnosis.items import SCHEMA
from dpe_jobs.generation import page
from dpe_jobs.generation.gallery import KEPT, Gallery, Shown

OUTCOMES = (KEPT, "TooHard", HOSTILE[1])


def write(folder: Path, texts: tuple[str, ...]) -> Path:
    """A page of a generation whose every text is one of `texts`, names of categories among them."""
    store, questions = MemoryStore(), diagnosed.shapes(4)
    worlds.upload(store, worlds.PROBE_URI, questions)
    with TemporaryDirectory() as name:
        items, _ = diagnosed.answer(questions, Path(name))
        rows = [
            row | {"correct": False, "response": texts[n % len(texts)]} for n, row in enumerate(diagnosed_rows(items))
        ]
        pq.write_table(diagnosed.table(rows).select(SCHEMA.names), items)
        store.upload(items, f"{world.DIAGNOSIS}/items.parquet")
    gallery = Gallery(world.quotas(dict.fromkeys(texts, 4)))
    for n, question in enumerate(questions * 4):
        text, other = texts[n % len(texts)], texts[(n + 1) % len(texts)]
        gallery.take(
            Shown(
                f"{n} {text}", text, OUTCOMES[n % len(OUTCOMES)], other, text, (question.id, other), True, other, other,
                texts, text, "exact", other, 0.5, picture=shrink(question.image),
            )
        )  # fmt: skip
    categories = [
        CategorySamples(name=text, quota=4, candidates=30, kept=10, rejected=dict.fromkeys(OUTCOMES[1:], 10))
        for text in texts
    ]
    summary = GenerationSummary(
        target=40, candidates=30 * len(texts), kept=10 * len(texts), shortfall=0,
        rejected=dict.fromkeys(OUTCOMES[1:], 10 * len(texts)), sources={texts[0]: 10}, categories=categories,
    )  # fmt: skip
    page.write(gallery, summary, world.launch("http://x"), store, folder / page.PAGE, datetime.now(UTC))
    return folder / page.PAGE


def diagnosed_rows(items: Path) -> list[dict[str, object]]:
    return list(pq.read_table(items).to_pylist())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("gallery"), ("color", "shape"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("hostile"), HOSTILE)


@pytest.mark.parametrize("which", ["written", "hostile"])
def test_the_page_asks_for_nothing_and_complains_of_nothing(
    browser: WebDriver, which: str, request: pytest.FixtureRequest
) -> None:
    asked = look(browser, request.getfixturevalue(which))
    assert [url[:80] for url in asked if not url.startswith("data:image/webp;base64,")] in ([], ["data:,"])
    assert complaints(browser) == []


def test_groups_open_pictures_decode_and_links_lead_to_the_examples(browser: WebDriver, written: Path) -> None:
    look(browser, written)
    assert set(table(browser, "data-category")) == {"color", "shape"}
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    widths = browser.execute_script("return [...document.images].map(i => i.complete && i.naturalWidth)")
    assert len(widths) > 50
    assert set(widths) == {64}
    dead = browser.execute_script(
        "return [...document.querySelectorAll('a')].filter(a => !document.querySelector(a.getAttribute('href'))).length"
    )
    assert dead == 0
    assert browser.find_elements(By.CSS_SELECTOR, ".candidate a[href^='#example-']")


def test_hostile_text_is_shown_and_never_run(browser: WebDriver, hostile: Path) -> None:
    look(browser, hostile)
    assert browser.execute_script("return window.ran") is None
    assert browser.execute_script("return document.scripts.length") == 0
    attributes = browser.execute_script(
        "return [...document.querySelectorAll('*')].flatMap(element => element.getAttributeNames())"
    )
    assert not [name for name in attributes if name.startswith("on")]
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert HOSTILE[0] in browser.find_element(By.TAG_NAME, "body").text
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 1280
