"""Seeds that do not depend on order or on restarts: a resumed run equals an uninterrupted one."""

import hashlib


def derive(seed: int, *parts: object) -> int:
    """A seed in [0, 2^31) from the spec's seed and whatever names the draw (round, stage, item id, number)."""
    text = "\x1f".join([str(seed), *(str(p) for p in parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFF_FFFF
