"""Before `helm uninstall`: delete all DPEIterations while the operator is still there to stop their pods.

Without the operator nothing would remove their finalizer. What they wrote to the object store stays.
"""

import asyncio
import os
import sys
import time

from dpe_operator.gateway import Gateway, connect
from dpe_operator.observe import identity


async def left(gateway: Gateway, namespaces: list[str]) -> list[dict]:
    """All DPEIterations that are still there."""
    return [body for namespace in namespaces for body in await gateway.iterations(namespace)]


async def main(timeout_s: float) -> int:
    """Exit code: 0 when none is left."""
    gateway, namespaces = Gateway(connect()), os.environ["DPE_NAMESPACES"].split(",")
    end, told = time.monotonic() + timeout_s, set()
    while bodies := await left(gateway, namespaces):
        for iteration in map(identity, bodies):
            if not iteration.deleting:
                await gateway.remove(iteration)
            if iteration.uid not in told:
                told.add(iteration.uid)
                print(f"deleting {iteration.namespace}/{iteration.name}; its artifacts stay")
        if time.monotonic() > end:
            names = ", ".join(f"{i.namespace}/{i.name}" for i in map(identity, bodies))
            print(f"still there after {timeout_s:.0f} s: {names}. Does the operator run? Its log says what it waits for.")
            return 1
        await asyncio.sleep(1)
    print("no DPEIteration is left")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(float(sys.argv[1]))))
