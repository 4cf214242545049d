"""The init container of pods that need a model: download it, checked against its manifest."""

import json
import logging
import shutil
import time
from functools import partial
from pathlib import Path

from dpe_api.launch import Launch, ServingLaunch, TrainingLaunch
from dpe_api.names import MODEL_CACHE_DIR, MODEL_DIR, Exit
from dpe_jobs.runtime import BadConfig, BadData, run_stage
from dpe_jobs.serving import cache
from dpe_jobs.store import Store

log = logging.getLogger(__name__)


def main(launch: Launch) -> Exit:
    """Fetch the model of a serving or training launch into MODEL_DIR."""
    return run_stage(launch, run, metrics=False)


def run(launch: Launch, store: Store) -> None:
    """Download, then look whether it can be a model at all: that is cheaper than starting vLLM to find out."""
    if not isinstance(launch, ServingLaunch | TrainingLaunch):
        raise BadConfig("NoModel", f"stage {launch.stage} has no model to fetch")
    fetch(store, launch.model_uri, Path(MODEL_DIR), Path(MODEL_CACHE_DIR), launch.model_cache_bytes)


def fetch(
    store: Store, uri: str, folder: Path, cached: Path = Path(MODEL_CACHE_DIR), cache_bytes: int | None = None
) -> None:
    """Download a model, through the cache where there is one. NotFound, ChecksumMismatch, BadData: what is wrong."""
    started = time.monotonic()
    for leftover in folder.iterdir() if folder.exists() else ():  # of a restarted init container
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    if cache_bytes is None or not cache.provide(store, uri, folder, cached, cache_bytes, partial(check, uri)):
        store.fetch_tree(uri, folder)
        check(uri, folder)
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    log.info("fetched %s: %.1f MB in %.1f s", uri, size / 1e6, time.monotonic() - started)


def check(uri: str, folder: Path) -> None:
    """BadData when the folder is no Hugging Face model: no readable config.json, or no weights."""
    config = folder / "config.json"
    if not config.is_file():
        raise BadData("NoModel", f"{uri} has no config.json: upload a Hugging Face model folder")
    try:
        architectures = json.loads(config.read_text()).get("architectures")
    except (ValueError, AttributeError) as error:
        raise BadData("NoModel", f"{uri}/config.json is not a JSON object ({error}): upload the model again") from error
    if not architectures:
        raise BadData("NoModel", f"{uri}/config.json names no architectures: upload a model that vLLM can load")
    if not any(folder.glob("*.safetensors")):
        raise BadData("NoModel", f"{uri} has no .safetensors weights: save the model with save_pretrained")
