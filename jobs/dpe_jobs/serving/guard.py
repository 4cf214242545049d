"""What in a model server may be reached by whom.

vLLM takes other weights at addresses that it opens only in its development mode, all of them and to everybody. This
middleware runs inside vLLM's API server and lets others through to its OpenAI API, its health and its metrics alone.
The wrapper has a key, made anew for each pod; it is passed on in the environment and nowhere else.
"""

import hmac
import os
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

MIDDLEWARE = f"{__name__}.Guard"
HEADER = "x-dpe-wrapper"
_KEY = "DPE_WRAPPER_KEY"
_OPEN = ("/health", "/metrics", "/version")
# below /v1, and still no question to a model
_SHUT = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
_REFUSAL = b"not found: this server has /v1, /health and /metrics\n"

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


def new_key() -> str:
    """A key that nobody can guess."""
    return secrets.token_urlsafe(32)


def opened(key: str) -> dict[str, str]:
    """The environment of a vLLM that can be changed while it runs, by whoever has the key."""
    return {"VLLM_SERVER_DEV_MODE": "1", _KEY: key}


def is_open(path: str) -> bool:
    """Whether anybody may ask for this."""
    return path in _OPEN or (path.startswith("/v1/") and path not in _SHUT)


class Guard:
    """ASGI middleware: 404 for everything but what is open, unless the request carries the key."""

    def __init__(self, app: _App) -> None:
        self._app = app
        self._key = os.environ[_KEY].encode()

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan" or is_open(scope["path"]) or self._has_key(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": _REFUSAL})

    def _has_key(self, scope: _Scope) -> bool:
        given = [value for name, value in scope.get("headers", []) if name == HEADER.encode()]
        return len(given) == 1 and hmac.compare_digest(given[0], self._key)
