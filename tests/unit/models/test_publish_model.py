"""A base model gets into the store by one command, with the manifest that lets it be checked and cached."""

import json
from pathlib import Path

import pytest
from tests.fakes.memory_store import MemoryStore

from dpe_api.names import Exit
from dpe_jobs import models
from dpe_jobs.runtime import BadConfig, BadData
from dpe_jobs.serving import cache
from dpe_jobs.store import StoreUnreachable

URI = "s3://dpe/models/mine"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    it = tmp_path / "model"
    (it / ".git").mkdir(parents=True)
    (it / "config.json").write_text(json.dumps({"architectures": ["Qwen2_5_VLForConditionalGeneration"]}))
    (it / "model.safetensors").write_bytes(b"weights")
    for name in ("README.md", ".gitattributes", "manifest.json", ".git/HEAD"):
        (it / name).write_text("not the model's")
    return it


def test_a_folder_becomes_a_model_that_pods_can_check_and_cache(folder: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    assert models.publish_model(store, folder, URI)
    manifest = store.manifest(URI)
    assert manifest is not None
    assert [o.path for o in manifest.outputs] == ["config.json", "model.safetensors"]
    assert set(store.objects) == {f"{URI}/{n}" for n in ("config.json", "model.safetensors", "manifest.json")}
    cached, links = tmp_path / "cache", tmp_path / "links"
    cached.mkdir()
    links.mkdir()
    assert cache.provide(store, URI, links, cached, 1 << 20, lambda _: None)
    assert (links / "model.safetensors").read_bytes() == b"weights"


def test_a_second_run_uploads_nothing(folder: Path) -> None:
    store = MemoryStore()
    models.publish_model(store, folder, URI)
    before = list(store.puts)
    assert not models.publish_model(store, folder, URI)
    assert store.puts == before


def test_an_upload_that_was_interrupted_is_run_again(folder: Path) -> None:
    store = MemoryStore()
    store.put(f"{URI}/model.safetensors", b"half")
    assert models.publish_model(store, folder, URI)
    assert store.objects[f"{URI}/model.safetensors"] == b"weights"


def test_a_model_that_iterations_may_name_is_not_replaced(folder: Path) -> None:
    store = MemoryStore()
    models.publish_model(store, folder, URI)
    (folder / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(BadConfig, match=f"{URI} holds another model"):
        models.publish_model(store, folder, URI)
    assert store.objects[f"{URI}/model.safetensors"] == b"weights"


def test_a_folder_with_other_things_is_left_alone(folder: Path) -> None:
    store = MemoryStore()
    store.put("s3://dpe/models/mine/data/part-0.parquet", b"rows")
    with pytest.raises(BadConfig, match=r"holds other things, s3://dpe/models/mine/data/part-0\.parquet first"):
        models.publish_model(store, folder, URI)
    assert set(store.objects) == {"s3://dpe/models/mine/data/part-0.parquet"}


def test_what_is_no_model_is_refused_before_anything_is_written(folder: Path) -> None:
    store = MemoryStore()
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadData, match=r"no \.safetensors weights"):
        models.publish_model(store, folder, URI)
    assert store.objects == {}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--to", "models/mine"], Exit.BAD_CONFIG, "BadAddress"),
        (["--to", URI], Exit.TRANSIENT, "no answer"),
    ],
)
def test_the_command_says_what_is_wrong(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: Exit,
    words: str,
) -> None:
    store = MemoryStore()
    store.down = True
    monkeypatch.setattr(models, "connect", lambda _: store)
    assert models.main([str(folder), *arguments]) == code
    assert words in capsys.readouterr().err


def test_an_outage_leaves_no_manifest(folder: Path) -> None:
    store = MemoryStore()
    store.down = True
    with pytest.raises(StoreUnreachable):
        models.publish_model(store, folder, URI)
    assert store.objects == {}
