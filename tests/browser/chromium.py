"""Chromium looks at pages from the disk: what they ask for, what they complain of, which figures they show."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver

BROWSER, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1280,1000"),
)


@contextmanager
def chromium(profile: Path) -> Iterator[WebDriver]:
    """Chromium, headless, with a new profile; it writes down every request and every line of its console."""
    missing = [str(program) for program in (BROWSER, DRIVER) if not program.exists()]
    if missing:
        pytest.fail(f"{' and '.join(missing)} missing: apt-get install chromium chromium-driver (make setup does)")
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    profile.mkdir(exist_ok=True)
    # what both leave behind in the folder for temporary files is gone with the profile
    service = Service(str(DRIVER), env={**os.environ, "TMPDIR": str(profile)})
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


def look(browser: WebDriver, path: Path) -> list[str]:
    """Open a page; the addresses that it asked for, the page itself left out."""
    browser.get("about:blank")  # the page that a browser starts with asks for things, too
    for log in ("performance", "browser"):
        browser.get_log(log)  # that of the page before
    browser.get(path.as_uri())
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert path.as_uri() in asked  # else the log would show nothing of the rest either
    return [url for url in asked if url != path.as_uri()]


def complaints(browser: WebDriver) -> list[str]:
    """What the browser's console says, a violation of the page's own policy for one."""
    return [entry["message"] for entry in browser.get_log("browser")]


def table(browser: WebDriver, attribute: str) -> dict[str, dict[str, str]]:
    """Rows that carry an attribute, by its value: their data- attributes and their text."""
    script = """return [...document.querySelectorAll(`tr[${arguments[0]}]`)].map(
        row => [row.getAttribute(arguments[0]), {...row.dataset, text: row.innerText}])"""
    return dict(browser.execute_script(script, attribute))


def check_figures(browser: WebDriver, rows: list[dict[str, Any]]) -> None:
    """The open report shows, of every category and of all together, what these rows of items.parquet say."""
    shown, names = table(browser, "data-category"), {r["category"] for r in rows}
    assert set(shown) == names
    accuracies = []
    for name in names:
        mine = [r for r in rows if r["category"] == name]
        answered = [r for r in mine if r["correct"] is not None]
        accuracy = sum(r["correct"] for r in answered) / len(answered)
        pass_rate = sum(r["pass_rate"] for r in answered) / len(answered)
        accuracies.append(accuracy)
        row = shown[name]
        assert int(row["n"]) == len(answered)
        assert int(row["errors"]) == len(mine) - len(answered)
        assert float(row["accuracy"]) == pytest.approx(accuracy)
        assert float(row["passRate"]) == pytest.approx(pass_rate)
        assert f"{100 * accuracy:.1f}%" in row["text"]
        assert f"{100 * pass_rate:.1f}%" in row["text"]
    macro = sum(accuracies) / len(accuracies)
    assert browser.find_element(By.CSS_SELECTOR, ".figure").text == f"{100 * macro:.1f}%"
    wrong = sum(r["correct"] is False for r in rows)
    assert browser.find_element(By.CSS_SELECTOR, "[data-wrong]").text == f"{wrong:,}"
