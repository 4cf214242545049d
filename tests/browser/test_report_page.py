"""report.html in a real browser, from the disk, without a network. One start of the browser for all tests."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from tests.browser import diagnosed
from tests.browser.chromium import check_figures, complaints, look, table

from dpe_api.artifacts import DiagnosisReport
from dpe_api.diagnosis_spec import Diagnosis
from dpe_jobs.diagnosis import page

RUN = "window.ran = (window.ran || 0) + 1"
HOSTILE = (
    f"<script>{RUN}</script>",
    f'"><img src=x onerror="{RUN}">',
    f"</style></title></textarea><svg onload={RUN}>",
    f"javascript:{RUN}",
    "{{ 7 * 7 }} {% raw %} &lt;b&gt; ' \" `",
    "w" * 3000,
    "\u202eright to left override, مرحبا بالعالم שלום",
    "a\x00b\x1b[31m\u2028",
)


@dataclasses.dataclass(frozen=True)
class Written:
    """A page and what it was made of."""

    path: Path
    report: DiagnosisReport
    rows: list[dict[str, Any]]


def write(folder: Path, questions: list[Any], change: Any = lambda row: row) -> Written:
    items, asked = diagnosed.answer(questions, folder)
    rows = [change(row) for row in pq.read_table(items).to_pylist()]
    pq.write_table(diagnosed.table(rows), items)
    report, quotas = diagnosed.report(items, Diagnosis())
    out = folder / page.PAGE
    page.write(report, quotas, items, asked, out, settings=Diagnosis(), created_at=datetime.now(UTC))
    return Written(out, report, rows)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write(tmp_path_factory.mktemp("report"), diagnosed.shapes(150))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Every text of every row, category names among them, is hostile."""
    questions = [
        dataclasses.replace(
            question,
            id=f"{n} {HOSTILE[n % len(HOSTILE)]}",
            category=HOSTILE[n % len(HOSTILE)],
            question=HOSTILE[(n + 1) % len(HOSTILE)],
            answer=HOSTILE[(n + 2) % len(HOSTILE)],
            choices=HOSTILE,
            facets={HOSTILE[n % 3]: HOSTILE[(n + 3) % len(HOSTILE)]},
        )
        for n, question in enumerate(diagnosed.shapes(60))
    ]

    def change(row: dict[str, Any]) -> dict[str, Any]:
        evil = {"response": row["question"], "claim": row["answer"][::-1], "weakness": row["category"]}
        return row | (evil if row["correct"] is not None else {"error": row["category"]})

    return write(tmp_path_factory.mktemp("hostile"), questions, change)


def test_the_figures_shown_are_those_of_the_parquet_file(browser: WebDriver, written: Written) -> None:
    look(browser, written.path)
    check_figures(browser, written.rows)


def test_slices_and_matrices_count_the_rows_of_the_parquet_file(browser: WebDriver, written: Written) -> None:
    look(browser, written.path)
    shown = table(browser, "data-slice")
    assert len(shown) == len(written.report.attribution.slices) > 0
    for found in written.report.attribution.slices:
        rows = [
            r
            for r in written.rows
            if r["correct"] is not None
            and found.category in (None, r["category"])
            and found.facets.items() <= {f["key"]: f["value"] for f in r["facets"]}.items()
        ]
        row = shown[page.where(found)]
        assert (int(row["n"]), int(row["correct"])) == (len(rows), sum(r["correct"] for r in rows))
    script = """return [...document.querySelectorAll('[data-matrix]')].map(t => [t.dataset.matrix,
        [...t.querySelectorAll('tbody td')].map(td => Number(td.innerText)),
        [...t.querySelectorAll('tbody td[class^=r]')].map(td => Number(td.innerText))])"""
    matrices = browser.execute_script(script)
    assert len(matrices) == len({r["category"] for r in written.rows})
    for name, cells, right in matrices:
        answered = [r for r in written.rows if r["category"] == name and r["correct"] is not None]
        assert sum(cells) == len(answered)
        assert sum(right) == sum(r["correct"] for r in answered)


def test_failures_are_shown_with_their_images(browser: WebDriver, written: Written) -> None:
    look(browser, written.path)
    wrong = {r["id"]: r for r in written.rows if r["correct"] is False}
    figures = browser.find_elements(By.CSS_SELECTOR, "figure[data-failure]")
    assert len(figures) > 20
    for figure in figures:
        row = wrong[figure.get_attribute("data-failure")]
        assert row["question"] in figure.text
        assert row["claim"] in figure.text
    widths = browser.execute_script("return [...document.images].map(i => i.complete && i.naturalWidth)")
    assert widths == [64] * len(figures)  # easy-vqa's pictures are 64 pixels wide


@pytest.mark.parametrize("which", ["written", "hostile"])
def test_the_page_asks_for_nothing_and_complains_of_nothing(
    browser: WebDriver, which: str, request: pytest.FixtureRequest
) -> None:
    asked = look(browser, request.getfixturevalue(which).path)
    assert [url[:80] for url in asked if not url.startswith("data:image/webp;base64,")] in ([], ["data:,"])
    assert complaints(browser) == []


def test_hostile_text_is_shown_and_never_run(browser: WebDriver, hostile: Written) -> None:
    look(browser, hostile.path)
    assert browser.execute_script("return window.ran") is None
    assert browser.execute_script("return document.scripts.length") == 0
    attributes = browser.execute_script(
        "return [...document.querySelectorAll('*')].flatMap(element => element.getAttributeNames())"
    )
    assert not [name for name in attributes if name.startswith("on")]
    text = browser.find_element(By.TAG_NAME, "body").text
    assert HOSTILE[0] in text
    assert "{{ 7 * 7 }}" in text
    # a long word makes no part of the page wider than the window
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 1280


def test_hostile_text_would_not_run_even_if_it_were_not_escaped(
    browser: WebDriver, written: Written, tmp_path: Path
) -> None:
    """The page's own policy is a second wall: here the first is torn down."""
    torn = tmp_path / "torn.html"
    evil = f'<script>{RUN}</script><img src=x onerror="{RUN}"><img src="http://127.0.0.1:9/x.png">'
    torn.write_text(written.path.read_text().replace("<h1>", evil + "<h1>"))
    look(browser, torn)
    assert browser.execute_script("return window.ran") is None
    assert len(complaints(browser)) >= 3  # each refused


def test_the_page_follows_the_dark_mode_and_a_narrow_window(browser: WebDriver, written: Written) -> None:
    look(browser, written.path)
    color = "return getComputedStyle(document.body).backgroundColor"
    light = browser.execute_script(color)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    assert browser.execute_script(color) != light
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
