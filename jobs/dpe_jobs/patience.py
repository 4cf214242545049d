"""How long a served model may take to answer, and how it is noticed that none will come."""

import socket

SHORTEST_S = 120.0
SLOWEST_TOKEN_S = 0.1  # that a server takes for a token of each sequence that it works on
SEQUENCES = 256  # that it works on at a time: vLLM's default; the others queue
PROBED = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),  # seconds of silence before the first probe
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),  # seconds
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 90_000),  # ms; also for a request that is not acknowledged
)
"""Options of connections: an answer may take longer than the operator bears a stage without progress, and a lost node
ends no connection. The kernel asks whether it is there, and ends it after 90 s; patience is for who is there."""


def patience_s(max_tokens: int, sequences: int) -> float:
    """Longest wait for an answer: a fixed one would lose the long answers, and they are not a sample of all.

    `max_tokens` of one answer, `sequences` that are asked for at a time.
    """
    turns = max(1.0, sequences / SEQUENCES)
    return max(SHORTEST_S, turns * max_tokens * SLOWEST_TOKEN_S)
