"""Before `helm uninstall`: delete all DPERuns, which begin no round any more, then all DPEIterations, while the operator
is still there to stop their pods.

Without the operator nothing would remove their finalizer. What they wrote to the object store stays.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from kubernetes.client.exceptions import ApiException

from dpe_operator.gateway import Gateway, connect, is_refused
from dpe_operator.observe import identity
from dpe_operator.runs import reconcile as runs
from dpe_operator.world import Resource

# An API server that is just starting answers 403 to what it will allow.
REFUSED_S = 30.0


class Namespaces:
    """Those to look into. One that has refused for REFUSED_S is left out: it is gone, or its Role is."""

    def __init__(self, names: set[str]):
        self.names = names
        self.left_out: list[str] = []
        self._refused_since: dict[tuple[str, str], float] = {}

    async def listed(self, kind: Callable[[str], Awaitable[list[dict[str, Any]]]]) -> tuple[list[dict[str, Any]], bool]:
        """What there is, and whether no namespace that still counts has refused to tell."""
        found, complete = [], True
        for name in sorted(self.names):
            try:
                found += await kind(name)
                self._refused_since.pop((kind.__name__, name), None)
            except ApiException as error:
                if not is_refused(error):
                    raise
                now = time.monotonic()
                if now - self._refused_since.setdefault((kind.__name__, name), now) < REFUSED_S:
                    complete = False
                    continue
                self.names.remove(name)
                self.left_out.append(name)
                print(f"namespace {name} is left out: the API server answers {error.status} {error.reason}")
        return found, complete

    async def left(self, gateway: Gateway) -> tuple[list[Resource], bool]:
        """All DPERuns that are still there; when there is none, all DPEIterations. False when there may be more."""
        bodies, complete = await self.listed(gateway.runs)
        found: list[Resource] = [runs.identity(body) for body in bodies]
        if not found and complete:
            bodies, complete = await self.listed(gateway.iterations)
            found = [identity(body) for body in bodies]
        return found, complete


async def main(timeout_s: float) -> int:
    """Exit code: 0 when none is left."""
    gateway, namespaces = Gateway(connect()), Namespaces(set(os.environ["DPE_NAMESPACES"].split(",")))
    end, told = time.monotonic() + timeout_s, set()
    while True:
        found, complete = await namespaces.left(gateway)
        if not found and complete:
            break
        for resource in found:
            if not resource.deleting:
                await gateway.remove(resource)
            if resource.uid not in told:
                told.add(resource.uid)
                print(f"deleting {resource.kind} {resource.namespace}/{resource.name}; its artifacts stay")
        if time.monotonic() > end:
            names = ", ".join(f"{r.namespace}/{r.name}" for r in found) or "nobody knows: the API server refuses"
            print(
                f"still there after {timeout_s:.0f} s: {names}. Does the operator run? Its log says what it waits for."
            )
            return 1
        await asyncio.sleep(1)
    unseen = f", but nobody could look into {', '.join(namespaces.left_out)}" if namespaces.left_out else ""
    print(f"no DPERun and no DPEIteration is left{unseen}")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(float(sys.argv[1]))))
