"""What the pages say is what the code does."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


OF_OTHERS = {"OOMKilled", "OutOfMemoryError"}  # Kubernetes' own, and torch's name of an exception


def test_every_reason_in_troubleshooting_is_one_that_the_code_gives() -> None:
    source = "\n".join(p.read_text() for part in ("operator", "jobs") for p in (ROOT / part).rglob("*.py"))
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    reasons = {reason for cell in cells for reason in re.findall(r"`([A-Z][A-Za-z]+)`", cell)}
    assert len(reasons) > 30
    assert reasons >= OF_OTHERS
    assert [r for r in sorted(reasons - OF_OTHERS) if f'"{r}"' not in source and f"class {r}(" not in source] == []


@pytest.mark.parametrize("name", ["iteration-1.yaml", "iteration-2.yaml"])
def test_the_readme_shows_the_example_as_it_is(name: str) -> None:
    assert (ROOT / "examples" / "shapes" / name).read_text() in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", page.read_text())
    assert [t for t in targets if not (page.parent / t).exists()] == []


def test_targets_of_make_that_the_readme_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"`make (?:-s )?([a-z-]+)", (ROOT / "README.md").read_text()))
    assert [t for t in sorted(named) if not re.search(rf"^{t}:", makefile, re.MULTILINE)] == []
