"""Ids of an iteration's trace, derived from the resource's uid: every process finds the same without asking another.

The trace is the iteration; its root span is the resource, below that is one span for each attempt of a stage. W3C Trace
Context (https://www.w3.org/TR/trace-context/) gives the forms.
"""

import hashlib
import uuid


def _digest(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def trace_id(uid: str) -> str:
    """32 hexadecimal digits: those of `metadata.uid`, which `kubectl get -o yaml` shows; never only zeros."""
    try:
        digits = uuid.UUID(uid).hex
    except ValueError:
        return _digest(uid)[:32]
    return digits if int(digits, 16) else _digest(uid)[:32]


def root_span_id(uid: str) -> str:
    """16 hexadecimal digits: the span of the resource, from its creation to its end."""
    return _digest(uid)[:16]


def attempt_span_id(uid: str, stage: str, attempt: int) -> str:
    """16 hexadecimal digits: the span of one attempt of a stage, parent of whatever its pods do."""
    return _digest(uid, stage, attempt)[:16]


def traceparent(uid: str, stage: str, attempt: int) -> str:
    """An attempt as the header and the environment variable have it."""
    return f"00-{trace_id(uid)}-{attempt_span_id(uid, stage, attempt)}-01"
