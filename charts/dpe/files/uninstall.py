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


async def left(gateway: Gateway, namespaces: set[str]) -> list[Resource]:
    """All DPERuns that are still there; when there is none, all DPEIterations."""
    found: list[Resource] = [runs.identity(body) for body in await listed(gateway.runs, namespaces)]
    return found or [identity(body) for body in await listed(gateway.iterations, namespaces)]


async def listed(kind: Callable[[str], Awaitable[list[dict[str, Any]]]], namespaces: set[str]) -> list[dict[str, Any]]:
    """What there is in all namespaces. One that is gone, or may not be looked at, is taken out of them."""
    found = []
    for name in sorted(namespaces):
        try:
            found += await kind(name)
        except ApiException as error:
            if not is_refused(error):
                raise
            namespaces.remove(name)
            print(f"namespace {name} is left out: the API server answers {error.status} {error.reason}")
    return found


async def main(timeout_s: float) -> int:
    """Exit code: 0 when none is left."""
    gateway, namespaces = Gateway(connect()), set(os.environ["DPE_NAMESPACES"].split(","))
    end, told = time.monotonic() + timeout_s, set()
    while found := await left(gateway, namespaces):
        for resource in found:
            if not resource.deleting:
                await gateway.remove(resource)
            if resource.uid not in told:
                told.add(resource.uid)
                print(f"deleting {resource.kind} {resource.namespace}/{resource.name}; its artifacts stay")
        if time.monotonic() > end:
            names = ", ".join(f"{r.namespace}/{r.name}" for r in found)
            print(
                f"still there after {timeout_s:.0f} s: {names}. Does the operator run? Its log says what it waits for."
            )
            return 1
        await asyncio.sleep(1)
    print("no DPERun and no DPEIteration is left")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(float(sys.argv[1]))))
