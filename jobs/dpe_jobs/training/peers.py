"""Telling "my peer is gone" from a failure of one's own. No torch in here: the parent reads logs with it."""

import re

# what gloo, NCCL, the rendezvous store and DeepSpeed say when the other end of a connection is no longer there
_VANISHED = re.compile(
    r"Connection closed by peer|Connection reset by peer|Broken pipe|Connection refused"
    r"|remote process exited|NCCL (?:error|timeout|watchdog)|ncclRemoteError|ncclSystemError"
    r"|Watchdog caught collective operation timeout|connectFullMesh|Timed out waiting \d+ms"
    r"|failed to (?:recv|connect|send)|Socket Timeout|client socket has (?:failed|timed out)|wait timeout",
    re.IGNORECASE,
)
_KINDS = ("DistBackendError", "DistNetworkError", "DistStoreError", "RendezvousConnectionError")


def says_peer_is_gone(text: str) -> bool:
    """Whether an error's text is that of a broken collective or rendezvous."""
    return _VANISHED.search(text) is not None


def peer_is_gone(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a broken collective or rendezvous.

    Only errors of torch's distributed runtime count: a refused connection to the object store is not a lost peer.
    """
    while error is not None:
        name = type(error).__name__
        if name in _KINDS:
            return True
        if isinstance(error, RuntimeError) and says_peer_is_gone(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
