"""Text that endpoints get to read: marked as data, of bounded length, and hashed, so that nothing is paid for twice."""

import hashlib
from collections.abc import Mapping

LONGEST = 8000  # characters; what a model says last is its answer, so the beginning is cut


def digest(*parts: str | bytes) -> str:
    """A hash of parts in order, 32 hex digits; where one part ends is part of it."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "big"))
        whole.update(data)
    return whole.hexdigest()[:32]


def shorten(text: str, longest: int = LONGEST) -> str:
    """The end of a long text, with a note of how much is missing."""
    if len(text) <= longest:
        return text
    return f"[{len(text) - longest} characters left out]\n{text[-longest:]}"


def marked(**texts: str) -> dict[str, str]:
    """Each text between markers that it cannot close, and their `code`.

    The code is a hash of all texts: a model under test would have to know the hash of its own response to write it.
    """
    code = digest(*texts.values())[:12]
    while any(code in text for text in texts.values()):
        code = digest(code)[:12]
    blocks: Mapping[str, str] = {
        name: f"<{name}-{code}>\n{shorten(text)}\n</{name}-{code}>" for name, text in texts.items()
    }
    return {**blocks, "code": code}
