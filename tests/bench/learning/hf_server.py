"""A served model without vLLM: batched decoding by transformers behind the OpenAI protocol, in this very process.

For tiny models on one core this is faster than vLLM. Requests that wait are answered together; the answers of a
request do not depend on what else was in its batch, because its draws come from its own seed.
"""

import io
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from tests.fakes.openai_server import Asked, serving
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

MOST = 64  # requests in one batch


@dataclass(frozen=True, slots=True)
class _Request:
    image: Image.Image
    text: str
    n: int
    temperature: float
    top_k: int
    max_tokens: int
    seed: int
    answers: "Future[list[str]]"

    @property
    def kind(self) -> tuple[int, float, int, int]:
        """What must be the same in a batch, beside the length of the prompt."""
        return self.n, self.temperature, self.top_k, self.max_tokens


class Engine:
    """One model, and a thread that answers."""

    def __init__(self, folder: Path) -> None:
        self._processor = AutoProcessor.from_pretrained(folder)
        self._model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self._end = set(_ends(self._model.generation_config.eos_token_id))
        self._waiting: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer what waits, then end."""
        self._waiting.put(None)
        self._thread.join()

    def answer(self, asked: Asked) -> list[str]:
        """The script of the HTTP server."""
        body = asked.body
        sampled = float(body.get("temperature", 0)) > 0
        with Image.open(io.BytesIO(asked.image)) as image:
            request = _Request(
                image.convert("RGB"),
                asked.question,
                asked.n,
                float(body.get("temperature", 0)),
                int(body.get("top_k", -1)) if sampled else -1,
                int(body["max_tokens"]),
                int(body.get("seed") or 0),
                Future(),
            )
        self._waiting.put(request)
        return request.answers.result()

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            while len(batch) < MOST and not self._waiting.empty():
                more = self._waiting.get()
                if more is None:
                    self._waiting.put(None)
                    break
                batch.append(more)
            for kind in {r.kind for r in batch}:
                self._answer_alike([r for r in batch if r.kind == kind])

    def _answer_alike(self, requests: list[_Request]) -> None:
        turn = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": r.text}]}] for r in requests]
        texts = [self._processor.apply_chat_template(t, add_generation_prompt=True) for t in turn]
        by_length: dict[int, list[tuple[_Request, str]]] = {}
        for request, text in zip(requests, texts, strict=True):
            length = len(self._processor.tokenizer(text)["input_ids"])
            by_length.setdefault(length, []).append((request, text))
        for group in by_length.values():
            try:
                found = self._decode([r for r, _ in group], [t for _, t in group])
                for (request, _), answers in zip(group, found, strict=True):
                    request.answers.set_result(answers)
            except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
                for request, _ in group:
                    if not request.answers.done():
                        request.answers.set_exception(error)

    @torch.no_grad()
    def _decode(self, requests: list[_Request], texts: list[str]) -> list[list[str]]:
        """Texts of n answers per request. The prompts go through the model once, whatever n is."""
        n, temperature, top_k, max_tokens = requests[0].kind
        inputs = self._processor(text=texts, images=[r.image for r in requests], return_tensors="pt")
        drawn = torch.stack([_draws(r, n, max_tokens, self._model.config.text_config.vocab_size) for r in requests])
        out = self._model(**inputs, use_cache=True, logits_to_keep=1)
        logits, past = out.logits[:, -1].repeat_interleave(n, 0), out.past_key_values
        past.batch_repeat_interleave(n)
        tokens: list[torch.Tensor] = []
        for step in range(max_tokens):
            token = _choose(logits, temperature, top_k, drawn[:, :, step].flatten(0, 1))
            tokens.append(token)
            ended = torch.stack([sum(t == e for e in self._end) for t in tokens]).any(0)
            if step + 1 == max_tokens or bool(ended.all()):
                break
            logits = self._model(input_ids=token[:, None], past_key_values=past, use_cache=True).logits[:, -1]
        rows = torch.stack(tokens, 1).tolist()  # [requests * n, steps]
        said = [self._processor.tokenizer.decode(self._until_end(row), skip_special_tokens=True) for row in rows]
        return [said[i : i + n] for i in range(0, len(said), n)]

    def _until_end(self, row: list[int]) -> list[int]:
        end = next((i for i, token in enumerate(row) if token in self._end), len(row))
        return row[:end]


def _ends(token: int | list[int]) -> list[int]:
    return [token] if isinstance(token, int) else list(token)


def _draws(request: _Request, n: int, max_tokens: int, vocabulary: int) -> torch.Tensor:
    """Exponential draws of a request, [n, max_tokens, vocabulary]: argmax(p / e) is a draw from p."""
    if request.temperature <= 0:
        return torch.ones(n, max_tokens, 1)
    generator = torch.Generator().manual_seed(request.seed)
    return torch.empty(n, max_tokens, vocabulary).exponential_(generator=generator)


def _choose(logits: torch.Tensor, temperature: float, top_k: int, drawn: torch.Tensor) -> torch.Tensor:
    if temperature <= 0:
        return logits.argmax(-1)
    logits = logits / temperature
    if top_k > 0:
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    return (logits.softmax(-1) / drawn).argmax(-1)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of this model, while it is needed."""
    engine = Engine(folder)
    try:
        with serving(engine.answer) as http:
            yield http.url
    finally:
        engine.close()
