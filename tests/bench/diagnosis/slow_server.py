"""A model server of known latency: `python -m tests.bench.diagnosis.slow_server PORT`. GET /figures tells what it saw.

Latencies are lognormal with the median and the 99th percentile given; some requests end as HTTP 500 after theirs. In
flight is a request from its first byte read to its reply written.
"""

import argparse
import asyncio
import json
import math
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_JSON = "Content-Type: application/json\r\n"
QUANTILE_99 = 2.3263  # of the normal distribution


@dataclass
class Figures:
    """The integral of requests in flight, and how often each request was answered."""

    answered: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    area: float = 0.0
    """Requests times seconds."""
    at: float = 0.0
    first: float = 0.0
    arrived: float = 0.0
    """When the last request came."""
    area_then: float = 0.0

    def change(self, by: int) -> None:
        """A request comes or goes."""
        now = time.monotonic()
        self.area += self.in_flight * (now - self.at) if self.at else 0.0
        self.at, self.first = now, self.first or now
        self.in_flight += by
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        if by > 0:
            self.arrived, self.area_then = now, self.area

    def wire(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "requests": self.answered.total() + self.failed,
            "answered": len(self.answered),
            "answered_twice": sum(n > 1 for n in self.answered.values()),
            "failed": self.failed,
            "most_in_flight": self.most_in_flight,
            "seconds": self.at - self.first,
            "mean_in_flight": self.area / max(self.at - self.first, 1e-9),
            "mean_in_flight_before_the_end": self.area_then / max(self.arrived - self.first, 1e-9),
        }


class Server:
    """Speaks as much of HTTP as the client needs."""

    def __init__(self, p50_s: float, p99_s: float, error_rate: float, seed: int) -> None:
        self.figures = Figures()
        self._p50, self._sigma, self._errors = p50_s, math.log(p99_s / p50_s) / QUANTILE_99, error_rate
        self._random = random.Random(seed)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split()
                length = 0
                while (header := await reader.readline()) not in (b"\r\n", b""):
                    name, _, value = header.decode().partition(":")
                    length = int(value) if name.lower() == "content-length" else length
                body = json.loads(await reader.readexactly(length)) if length else {}
                status, said = await self._answer(method, path, body)
                data = json.dumps(said).encode()
                writer.write(f"HTTP/1.1 {status} X\r\n{_JSON}Content-Length: {len(data)}\r\n\r\n".encode() + data)
                await writer.drain()
                if method == "POST":
                    self.figures.change(-1)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client hung up: it has counted the request itself
        finally:
            writer.close()

    async def _answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if method == "GET":
            return 200, self.figures.wire() if path == "/figures" else {"data": [{"id": "model"}]}
        self.figures.change(1)
        await asyncio.sleep(self._random.lognormvariate(math.log(self._p50), self._sigma))
        if self._random.random() < self._errors:
            self.figures.failed += 1
            return 500, {"error": "simulated"}
        (text,) = (part["text"] for part in body["messages"][-1]["content"] if part["type"] == "text")
        n, sampled = body.get("n", 1), body.get("temperature", 0) > 0
        self.figures.answered[f"{sampled} {text}"] += 1
        choices = [{"index": i, "message": {"role": "assistant", "content": "red"}} for i in range(n)]
        return 200, {"choices": choices, "usage": {"prompt_tokens": 10, "completion_tokens": n}}


async def main(arguments: list[str]) -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--p50", type=float, default=1.0, help="seconds")
    parser.add_argument("--p99", type=float, default=8.0, help="seconds")
    parser.add_argument("--errors", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    server = Server(options.p50, options.p99, options.errors, options.seed)
    async with await asyncio.start_server(server.serve, "127.0.0.1", options.port) as running:
        await running.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
