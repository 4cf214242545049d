"""README.md beside the samples: what programs and people read of it."""

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from tests.fakes.memory_store import MemoryStore
from tests.fakes.openai_server import serving
from tests.unit.generation import world

from dpe_jobs.generation.card import cell, hub_licences
from dpe_jobs.generation.run import run
from dpe_jobs.generation.samples import MOST_LICENCES, OTHER_LICENCES, few_licences
from dpe_jobs.generation.shards import INDEX


def generated(store: MemoryStore, **changes: object) -> str:
    with serving(world.solves(0.5)) as model:
        run(world.launch(model.url, **changes), store)
    return store.get(f"{world.OUT}/README.md").decode()


def copied(store: MemoryStore, folder: Path) -> Path:
    """All that the manifest lists, as somebody downloads it."""
    manifest = store.manifest(world.OUT)
    assert manifest is not None
    for output in manifest.outputs:
        store.download(f"{world.OUT}/{output.path}", folder / output.path, output.sha256)
    return folder


def test_datasets_opens_the_folder_with_images_and_its_rejections(store, tmp_path):
    datasets = pytest.importorskip("datasets")
    generated(store)
    folder = str(copied(store, tmp_path / "samples-of-shapes"))
    cache = str(tmp_path / "cache")
    rows = datasets.load_dataset(folder, split="train", cache_dir=cache)
    assert len(rows) == 22
    assert rows[0]["image"].size == (64, 64)
    assert rows[0]["image"].mode == "RGB"
    rejected = datasets.load_dataset(folder, "rejected", split="train", cache_dir=cache)
    assert len(rejected) == len(world.table(store, "rejected.parquet"))
    assert datasets.get_dataset_config_names(folder) == ["default", "rejected"]


def test_the_card_counts_what_is_in_the_files_and_says_how_they_were_made(store):
    text = generated(store)
    said, rows = world.summary(store), world.samples(store)
    manifest = store.manifest(world.OUT)
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == ["apache-2.0"]
    assert front["size_categories"] == ["n<1K"]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    table = {row[0]: row[1:] for row in cells}
    for category in said.categories:
        kept = sum(row["category"] == category.name for row in rows)
        assert table[category.name] == [str(category.quota), str(kept), str(category.candidates), ""]
    assert table["render:shapes"] == ["22"]
    assert table["Apache-2.0"] == [str(sum(row["licence"] == "Apache-2.0" for row in rows))] == ["22"]
    for reason, count in said.rejected.items():
        assert table[reason] == [str(count)]
    (model,) = [one for one in manifest.inputs if one.uri == world.worlds.BASE_URI]
    assert model.sha256 in table["model"][0]
    assert "team/shapes-1, uid 0a1b2c3d-0000, round 0" in table["iteration"][0]
    assert re.fullmatch(r"sha256 [0-9a-f]{64} .*", table["prompts"][0])
    assert {name.strip("`") for row in cells for name in row[0].split(", ")} >= set(rows[0]), "every column is told of"


def test_shards_have_one_card_of_all_in_the_manifest(store, monkeypatch):
    with serving(world.solves(0.5)) as model:
        for index in range(3):
            monkeypatch.setenv(INDEX, str(index))
            run(world.launch(model.url, generation={"shards": 3}), store)
    assert [uri for uri in store.objects if uri.endswith("README.md")] == [f"{world.OUT}/README.md"]
    assert "README.md" in {output.path for output in store.manifest(world.OUT).outputs}
    assert world.summary(store).licences == {"Apache-2.0": 22}


@pytest.mark.parametrize(
    ("expressions", "names"),
    [
        (["Apache-2.0"], ["apache-2.0"]),
        (["CC-BY-4.0 AND CC0-1.0", "CC0-1.0"], ["cc-by-4.0", "cc0-1.0"]),
        (["(CC-BY-SA-2.0 OR MIT)", ""], ["mit", "other", "unknown"]),
        (["LicenseRef-mine"], ["other"]),
        ([], []),
    ],
)
def test_licences_have_the_names_of_the_hub(expressions, names):
    assert hub_licences(expressions) == names


def test_a_summary_tells_a_hundred_licences_apart_and_counts_the_rest():
    many = Counter({f"LicenseRef-{n:04d}": n + 1 for n in range(150)})
    few = few_licences(many)
    assert len(few) == MOST_LICENCES + 1
    assert sum(few.values()) == many.total()
    assert few[OTHER_LICENCES] == sum(range(1, 51))
    assert few_licences(Counter(few)) == few


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("chart_graph", "chart_graph"),
        ("a|b\nc", r"a\|b c"),
        ("<script>x</script>", r"\<script\>x\</script\>"),
        ("[here](javascript:x) _so_ `y`", r"\[here\]\(javascript:x\) \_so\_ \`y\`"),
        ("x" * 500, "x" * 80 + "…"),
    ],
)
def test_names_are_text_in_the_tables(text, written):
    assert cell(text) == written
