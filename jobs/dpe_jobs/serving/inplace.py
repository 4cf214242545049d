"""A running vLLM takes the weights of another model: pause, reload, forget what the old ones left in caches, resume.

The process, its compiled graphs and its memory stay. Whatever stands in the way, the server is started anew with the
other model, which is slower and never wrong.
"""

import json
import logging
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError

from dpe_api.artifacts import ServedReport
from dpe_api.launch import ServingLaunch
from dpe_api.names import MODEL_DIR
from dpe_jobs.client import RequestFailed
from dpe_jobs.serving import guard
from dpe_jobs.serving.fetch import fetch
from dpe_jobs.serving.server import Server, ask_about_a_picture
from dpe_jobs.store import Store, StoreError, StoreUnreachable, join

log = logging.getLogger(__name__)

FOLDER = Path(MODEL_DIR) / "next"  # beside the files of the model that is served first
POLL_S = 2.0
_WARM_POLL_S = 0.5
RELOAD_TIMEOUT_S = 600.0  # weights are read from the pod's disk; the operator's start-up deadline is the outer bound
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".gguf")
_NO_PART = ("manifest.json", "config.json", "training_args.bin")
_SAYS_NOTHING = ("transformers_version", "_name_or_path", "use_cache")  # about what the weights are computed with
_OLD_NAMES = {"torch_dtype": "dtype"}


class NotInPlace(Exception):
    """The running server cannot take these weights: why."""


def wait_until_published(store: Store, uri: str, server: Server) -> bool:
    """Wait for the first answer, then for another model's manifest, its last file. False: vLLM has ended before.

    A store that is away or says no is asked again: nobody needs the answer as long as the first model is served.
    """
    complaint = ""
    while True:
        try:
            if server.warm.is_set() and store.manifest(uri) is not None:
                return True
        except (StoreError, StoreUnreachable, ValidationError) as error:
            if type(error).__name__ != complaint:
                log.warning("cannot see whether %s is published: %s", uri, error)
            complaint = type(error).__name__
        with suppress(subprocess.TimeoutExpired):
            server.process.wait(POLL_S)
            return False


def take(launch: ServingLaunch, store: Store, server: Server, key: str, restart: Callable[[], None]) -> bool:
    """Take the weights of `launch.next_model_uri`. The server is not ready from now on until it answers with them.

    `restart` starts vLLM anew with the model in FOLDER. False: that was needed, and the log says why. Errors of the
    download go through, as in an init container.
    """
    assert launch.next_model_uri is not None
    server.warm.clear()
    log.info("%s is published: its weights are taken now", launch.next_model_uri)
    fetch(store, launch.next_model_uri, FOLDER)  # not through the cache of models: only init containers write to it
    try:
        why = disagreement(Path(MODEL_DIR), FOLDER, launch.extra_args)
        if why is not None:
            raise NotInPlace(why)
        reload(server.base_url, FOLDER, key)
    except NotInPlace as error:
        log.warning("vLLM starts anew: %s", error)
        restart()
        return False
    server.warm.set()
    return True


def report(launch: ServingLaunch, store: Store, server: Server, *, in_place: bool, began: float) -> None:
    """Say in the store that `launch.next_model_uri` is served, once it has answered; nothing when vLLM ends before.

    `began`: time.monotonic() when the model was seen to be published.
    """
    while not server.warm.wait(_WARM_POLL_S):
        if server.process.poll() is not None:
            return  # whoever waits for the process says why it ended
    served = ServedReport(
        attempt=launch.attempt,
        pod=socket.gethostname(),
        uri=launch.next_model_uri or "",
        in_place=in_place,
        seconds=round(time.monotonic() - began, 3),
        at=datetime.now(UTC),
    )
    log.info("%s answers after %.1f s, %s", served.uri, served.seconds, "in place" if in_place else "started anew")
    folder = join(launch.output, "attempts", str(launch.attempt))
    store.put(join(folder, f"served-{served.pod}.json"), served.model_dump_json(by_alias=True).encode())


def reload(base_url: str, folder: Path, key: str) -> None:
    """Pause, take the weights in `folder`, reset every cache, resume, and ask a question about an image.

    NotInPlace when any of it fails; what the server would answer then is unknown.
    """
    with httpx.Client(
        base_url=base_url, timeout=RELOAD_TIMEOUT_S, trust_env=False, headers={guard.HEADER: key}
    ) as client:

        def tell(path: str, body: dict[str, Any] | None = None) -> httpx.Response:
            try:
                return client.post(path, json=body).raise_for_status()
            except httpx.HTTPStatusError as error:
                said = error.response.text.strip()[:500]
                raise NotInPlace(f"{path} answers {error.response.status_code}: {said}") from error
            except httpx.HTTPError as error:
                raise NotInPlace(f"{path}: {type(error).__name__}: {error}") from error

        tell("/pause?mode=abort")  # nobody asks: those who needed the old weights have published what they found
        tell("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}})
        # keys and values, and images as the old weights saw them
        if not tell("/reset_prefix_cache?reset_running_requests=true").json().get("success"):
            raise NotInPlace("/reset_prefix_cache: the cache of the old weights is still in use")
        tell("/reset_mm_cache")
        tell("/reset_encoder_cache")
        tell("/resume")
    try:
        ask_about_a_picture(base_url)
    except RequestFailed as error:
        raise NotInPlace(f"a question about an image is not answered: {error}") from error


def disagreement(first: Path, second: Path, extra_args: Sequence[str] = ()) -> str | None:
    """Why a server of the first model folder would not serve the second one right with nothing but its weights.

    None when it would: tokenizer, template and processor are the same files, and the configurations agree. They may
    name different number formats where vLLM's arguments set one.
    """
    names = {path.name for folder in (first, second) for path in folder.iterdir() if path.is_file()}
    for name in sorted(name for name in names if name not in _NO_PART and not name.endswith(_WEIGHTS)):
        ours, theirs = first / name, second / name
        if not (ours.is_file() and theirs.is_file()) or ours.read_bytes() != theirs.read_bytes():
            return f"{name} is not the same in both models"
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (first, second))
    fixed = any(argument == "--dtype" or argument.startswith("--dtype=") for argument in extra_args)
    place = _conflict(before, after, _SAYS_NOTHING + (("dtype",) if fixed else ()))
    return None if place is None else f"config.json differs in {place}"


def _conflict(before: dict[str, Any], after: dict[str, Any], ignored: Sequence[str], inside: str = "") -> str | None:
    """Name of a value that both documents have and that is not the same. Savers of other versions leave out others."""
    before, after = ({_OLD_NAMES.get(key, key): value for key, value in it.items()} for it in (before, after))
    for key in sorted((before.keys() & after.keys()) - set(ignored)):
        ours, theirs = before[key], after[key]
        if isinstance(ours, dict) and isinstance(theirs, dict):
            if (place := _conflict(ours, theirs, ignored, f"{inside}{key}.")) is not None:
                return place
        elif ours != theirs:
            return f"{inside}{key}"
    return None
