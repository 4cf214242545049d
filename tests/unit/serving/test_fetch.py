import json

import pytest
from tests.fakes.memory_store import MemoryStore

from dpe_jobs.runtime import BadData
from dpe_jobs.serving.fetch import fetch
from dpe_jobs.store import ChecksumMismatch, NotFound, StoreError

URI = "s3://dpe/models/base"


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.put(f"{URI}/config.json", json.dumps({"architectures": ["Qwen2_5_VLForConditionalGeneration"]}).encode())
    store.put(f"{URI}/model.safetensors", b"weights")
    return store


def test_a_model_is_fetched_whole_and_leftovers_are_removed(store, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old.safetensors").write_text("x")
    fetch(store, URI, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("config.json", None, "has no config.json: upload a Hugging Face model folder"),
        ("config.json", b"{", "config.json is not a JSON object"),
        ("config.json", b"[]", "config.json is not a JSON object"),
        ("config.json", b"{}", "names no architectures"),
        ("model.safetensors", None, "has no .safetensors weights"),
    ],
)
def test_a_folder_that_is_no_model_is_refused_before_vllm_starts(store, tmp_path, name, data, said):
    del store.objects[f"{URI}/{name}"]
    if data is not None:
        store.put(f"{URI}/{name}", data)
    with pytest.raises(BadData, match=said):
        fetch(store, URI, tmp_path)


def manifest(path: str, sha256: str) -> bytes:
    output = {"path": path, "size": 7, "sha256": sha256, "mediaType": "x"}
    return json.dumps({"stage": "model", "createdAt": "2026-01-01T00:00:00Z", "outputs": [output]}).encode()


def test_weights_that_differ_from_their_manifest_are_refused(store, tmp_path):
    store.put(f"{URI}/manifest.json", manifest("model.safetensors", "0" * 64))
    with pytest.raises(ChecksumMismatch, match=r"model.safetensors: sha256 is .* upload it again"):
        fetch(store, URI, tmp_path)


def test_a_manifest_cannot_write_outside_the_folder(store, tmp_path):
    store.put(f"{URI}/manifest.json", manifest("../../escaped", "0" * 64))
    with pytest.raises(StoreError, match="leads out of the folder"):
        fetch(store, URI, tmp_path / "a")


def test_a_missing_model_names_its_address(tmp_path):
    with pytest.raises(NotFound, match="s3://dpe/models/base holds no files"):
        fetch(MemoryStore(), URI, tmp_path)
