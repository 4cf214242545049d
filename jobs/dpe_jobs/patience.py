"""How long a served model may take to answer."""

SHORTEST_S = 120.0
SLOWEST_TOKEN_S = 0.1  # that a server takes for a token of each sequence that it works on
SEQUENCES = 256  # that it works on at a time: vLLM's default; the others queue


def patience_s(max_tokens: int, sequences: int) -> float:
    """Longest wait for an answer: a fixed one would lose the long answers, and they are not a sample of all.

    `max_tokens` of one answer, `sequences` that are asked for at a time.
    """
    turns = max(1.0, sequences / SEQUENCES)
    return max(SHORTEST_S, turns * max_tokens * SLOWEST_TOKEN_S)
