"""Telling "my peer is gone" from a failure of one's own. No torch in here: the parent reads logs with it."""

import re

# what gloo, NCCL, the rendezvous store and DeepSpeed say when the other end of a connection is no longer there. Not
# "NCCL error" alone: a GPU without memory and a wrong interface are that, too, and would be tried again for ever
_VANISHED = re.compile(
    r"Connection closed by (?:remote )?peer|Connection reset by peer|Broken pipe|Connection refused|pair closure"
    r"|remote process exited|NCCL (?:timeout|watchdog)|ncclRemoteError"
    r"|Watchdog caught collective operation timeout|connectFullMesh|Timed out waiting \d+ms"
    r"|failed to (?:recv|connect|send)|Socket Timeout|client socket has (?:failed|timed out)|wait timeout",
    re.IGNORECASE,
)
_KINDS = ("DistNetworkError", "DistStoreError", "RendezvousConnectionError")  # whatever they say
_KILLED = re.compile(r"Root Cause.*?exitcode\s*:\s*-(?:7|9|11)\b", re.DOTALL)


def says_peer_is_gone(text: str) -> bool:
    """Whether an error's text is that of a broken collective or rendezvous."""
    return _VANISHED.search(text) is not None


def says_rank_was_killed(text: str) -> bool:
    """Whether torchrun's last words name a rank of this pod as the first to end, killed or by its own memory.

    Its neighbours lose a peer then, which is the consequence.
    """
    return _KILLED.search(text) is not None


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
