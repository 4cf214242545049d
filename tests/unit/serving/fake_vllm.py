"""A program that behaves as vLLM's API server does in one of its ways: `fake_vllm.py HOW FILE [MODEL PORT]`.

It writes its address to FILE. With a MODEL it answers with the text of the weights that it was last given.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
sys.path.insert(0, str(Path(__file__).parents[3] / "crds"))
sys.path.insert(0, str(Path(__file__).parents[3] / "jobs"))

from tests.fakes.openai_server import FakeModel, Reply

from dpe_jobs.serving import guard

ENGINE_DIED = """\
(EngineCore pid=42) ERROR 11-23 16:22:38 [core.py:1512] Traceback (most recent call last):
(EngineCore pid=42) ERROR 11-23 16:22:38 [core.py:1512] RuntimeError: Worker failed with error 'out of luck'
(APIServer pid=41) ERROR 11-23 16:22:38 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: EngineCore \
encountered an issue. See stack trace (above) for the root cause.
"""


def with_weights(folder: Path, port: int, *, reloads: bool) -> FakeModel:
    """A model that is its weights' text; it takes others when told so with the key in its environment."""
    weights = [(folder / "model.safetensors").read_text()]
    model = FakeModel(lambda asked: [weights[-1]], port=port)

    def other(path: str, body: bytes, headers: dict[str, str]) -> Reply:
        if headers.get(guard.HEADER) != os.environ["DPE_WRAPPER_KEY"]:
            return Reply(status=404)
        if path == "/collective_rpc":
            if not reloads:
                return Reply(status=500, body=b"out of luck")
            weights.append((Path(json.loads(body)["kwargs"]["weights_path"]) / "model.safetensors").read_text())
        return Reply(body=b'{"success": true}')

    model.others = other
    return model


def main() -> None:
    how, told, *rest = sys.argv[1:]
    if how == "refuses":
        print("usage: api_server.py [-h]\napi_server.py: error: unrecognized arguments: --x", flush=True)
        sys.exit(2)
    if how == "cannot-load":
        print("(APIServer pid=1) ValueError: No tokenizer file found in directory /model", flush=True)
        sys.exit(1)
    blind = how == "blind"
    model = FakeModel(lambda asked: Reply(status=400, body=b"no images here") if blind else ["a circle"])
    if rest:
        model.close()
        model = with_weights(Path(rest[0]), int(rest[1]), reloads=how != "cannot-reload")
    Path(told).write_text(model.url)
    print("INFO 11-23 16:00:00 [api_server.py:1] Started", flush=True)
    if how == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while how in ("serves", "stubborn", "blind", "cannot-reload") or not model.requests:
        time.sleep(0.01)
    time.sleep(0.3)
    print(ENGINE_DIED, flush=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
