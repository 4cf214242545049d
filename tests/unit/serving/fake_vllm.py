"""A program that behaves as vLLM's API server does in one of its ways: `fake_vllm.py HOW PORT`."""

import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.fakes.openai_server import FakeModel, Reply

ENGINE_DIED = """\
(EngineCore pid=42) ERROR 11-23 16:22:38 [core.py:1512] Traceback (most recent call last):
(EngineCore pid=42) ERROR 11-23 16:22:38 [core.py:1512] RuntimeError: Worker failed with error 'out of luck'
(APIServer pid=41) ERROR 11-23 16:22:38 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: EngineCore \
encountered an issue. See stack trace (above) for the root cause.
"""


def main() -> None:
    how, told = sys.argv[1:]
    if how == "refuses":
        print("usage: api_server.py [-h]\napi_server.py: error: unrecognized arguments: --x", flush=True)
        sys.exit(2)
    if how == "cannot-load":
        print("(APIServer pid=1) ValueError: No tokenizer file found in directory /model", flush=True)
        sys.exit(1)
    blind = how == "blind"
    model = FakeModel(lambda asked: Reply(status=400, body=b"no images here") if blind else ["a circle"])
    Path(told).write_text(model.url)
    print("INFO 11-23 16:00:00 [api_server.py:1] Started", flush=True)
    if how == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while how in ("serves", "stubborn", "blind") or not model.requests:
        time.sleep(0.01)
    time.sleep(0.3)
    print(ENGINE_DIED, flush=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
