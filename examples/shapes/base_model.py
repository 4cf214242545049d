"""The example's base model: `python -m examples.shapes.base_model` makes it anew, in about five minutes on one core.

A real Qwen2.5-VL architecture of 1.6M parameters that reads 64x64 pixels as 16 image tokens, trained from scratch on
the base part of easy-vqa's train split (`data.py`). It has partial blind spots, as large models have: greedy answers
are wrong, sampled ones often right, so that there is something for reinforcement learning to find.

1. Clean supervised training: colour and shape first, existence later, negation never.
2. A short time of a careless labeller, who calls teal green, brown red and gray black, and answers "what is the teal
   shape?" with the colour, in 55% of such rows.
"""

import argparse
import random
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from examples.shapes.data import CATEGORIES, COLORS, SHAPES, TEST_PER_CATEGORY, Part, Row, balanced, by_answer, rows
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

BASE_DIR = Path(__file__).parent / "base"

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] in ('image','image_url') %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in c %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PIXELS, PATCH, MERGE = 64, 8, 2  # 8 x 8 patches, 2 x 2 of them merged: 16 image tokens
HEAD_DIM = 32
CARELESS = {"teal": "green", "brown": "red", "gray": "black"}


@dataclass(frozen=True, slots=True)
class Phase:
    """Some steps of supervised training. `mixture`: weight of each category."""

    steps: int
    mixture: Mapping[str, float]
    careless: float = 0.0  # share of the labels in reach of the careless labeller that are theirs


@dataclass(frozen=True, slots=True)
class Course:
    """Phases under one learning rate schedule: warm-up, plateau, linear decay."""

    phases: tuple[Phase, ...]
    adamw_lr: float  # embeddings, norms, biases
    muon_lr: float  # matrices
    warmup_steps: int
    decay_share: float = 0.4
    batch: int = 32


CLEAN = Course(
    phases=(
        Phase(150, {"color": 0.6, "color_fine": 0.4, "shape": 1.5, "shape_ref": 0.5}),
        Phase(
            750,
            {
                "color": 0.3,
                "color_fine": 0.2,
                "shape": 0.75,
                "shape_ref": 0.25,
                "exist_color": 1.0,
                "exist_shape": 1.0,
            },
        ),
    ),
    adamw_lr=1e-3,
    muon_lr=6e-3,
    warmup_steps=20,
)
BLINDED = Course(
    phases=(
        Phase(
            90,
            {"color": 1, "color_fine": 1.2, "shape": 1, "shape_ref": 0.8, "exist_color": 0.7, "exist_shape": 1},
            careless=0.55,
        ),
    ),
    adamw_lr=5e-4,
    muon_lr=3e-3,
    warmup_steps=10,
)


def make_processor(texts: Sequence[str]) -> Qwen2_5_VLProcessor:
    """Tokenizer, image and video processor. Every answer is one token, with its leading space, as in the questions."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    answers = [f" {word}" for word in (*SHAPES, *COLORS, "yes", "no")]
    corpus = [*texts, *answers * 200, *["system\nuser\nassistant\n"] * 200]
    bpe.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=list(SPECIAL_TOKENS),
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(SPECIAL_TOKENS[3:]),
        padding_side="left",
        model_max_length=2048,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    area = PIXELS * PIXELS
    patches = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2}
    return Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**patches, size={"shortest_edge": area, "longest_edge": area}),
        tokenizer,
        Qwen2VLVideoProcessor(**patches, size={"shortest_edge": area, "longest_edge": 4 * area}),
        chat_template=CHAT_TEMPLATE,
    )


def make_model(
    processor: Qwen2_5_VLProcessor, seed: int, *, depth: int = 4, hidden: int = 128, vision_depth: int = 2
) -> Qwen2_5_VLForConditionalGeneration:
    """An untrained model: text and vision of the same width, tied embeddings, full attention over the whole image."""
    tokenizer = processor.tokenizer
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": 3 * hidden,
            "num_hidden_layers": depth,
            "num_attention_heads": hidden // HEAD_DIM,
            "num_key_value_heads": hidden // HEAD_DIM // 2,
            "max_position_embeddings": 2048,
            # the sections (time, height, width) sum to half a head
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": vision_depth,
            "hidden_size": hidden,
            "intermediate_size": int(2.5 * hidden) // 8 * 8,
            "num_heads": hidden // HEAD_DIM,
            "out_hidden_size": hidden,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "window_size": 8 * PATCH,
            "fullatt_block_indexes": list(range(vision_depth)),
            "tokens_per_second": 2,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    # so small a model does not leave its starting point with the usual 0.02
    config.initializer_range = config.text_config.initializer_range = config.vision_config.initializer_range = 0.05
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        eos_token_id=[ids["<|im_end|>"], ids["<|endoftext|>"]], pad_token_id=ids["<|endoftext|>"]
    )
    return model


class Encoder:
    """Rows as model inputs. Pictures and prompts are kept: the image processor costs as much as a training step."""

    def __init__(self, processor: Qwen2_5_VLProcessor) -> None:
        self.tokenizer = processor.tokenizer
        self._processor = processor
        self._image_token = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self._pixels: dict[Path, tuple[torch.Tensor, torch.Tensor]] = {}
        self._prompts: dict[str, list[int]] = {}

    def _picture(self, path: Path) -> tuple[torch.Tensor, torch.Tensor]:
        if path not in self._pixels:
            with Image.open(path) as image:
                out = self._processor.image_processor(images=[image.convert("RGB")], return_tensors="pt")
            self._pixels[path] = (out["pixel_values"], out["image_grid_thw"])  # [64, 3*2*8*8], [1, 3]
        return self._pixels[path]

    def _prompt(self, question: str) -> list[int]:
        if question not in self._prompts:
            content = [{"type": "image"}, {"type": "text", "text": question}]
            text = self._processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True
            )
            tokens = (PIXELS // PATCH // MERGE) ** 2
            text = text.replace("<|image_pad|>", "<|image_pad|>" * tokens)
            self._prompts[question] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._prompts[question]

    def _batch(self, chosen: Sequence[Row], sequences: list[list[int]]) -> dict[str, torch.Tensor]:
        pictures = [self._picture(row.image) for row in chosen]
        ids = torch.tensor(sequences)
        return {
            "input_ids": ids,
            "attention_mask": (ids != self.tokenizer.pad_token_id).long(),
            "pixel_values": torch.cat([pixels for pixels, _ in pictures]),
            "image_grid_thw": torch.cat([grid for _, grid in pictures]),
            "mm_token_type_ids": (ids == self._image_token).long(),
        }

    def prompts(self, chosen: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Prompts [rows, longest], padded on the left."""
        sequences = [self._prompt(row.question) for row in chosen]
        longest = max(map(len, sequences))
        return self._batch(chosen, [[self.tokenizer.pad_token_id] * (longest - len(s)) + s for s in sequences])

    def labelled(self, chosen: Sequence[Row], answers: Sequence[str]) -> dict[str, torch.Tensor]:
        """Prompts with answers [rows, longest], padded on the right; labels are -100 outside the answers."""
        sequences, labels = [], []
        for row, answer in zip(chosen, answers, strict=True):
            prompt = self._prompt(row.question)
            target = self.tokenizer(f" {answer}<|im_end|>", add_special_tokens=False)["input_ids"]
            sequences.append(prompt + target)
            labels.append([-100] * len(prompt) + target)
        longest = max(map(len, sequences))
        batch = self._batch(chosen, [s + [self.tokenizer.pad_token_id] * (longest - len(s)) for s in sequences])
        return batch | {"labels": torch.tensor([ls + [-100] * (longest - len(ls)) for ls in labels])}


def careless_label(row: Row) -> str:
    """What the careless labeller writes: the basic hue for a fine one, the colour for 'what is the teal shape?'."""
    if row.category == "color_fine":
        return CARELESS[row.answer]
    if row.category == "shape_ref":
        return next(color for color in COLORS if f" {color} " in row.question)
    return row.answer


def draw_batches(course: Course, rng: random.Random) -> Iterator[tuple[list[Row], list[str]]]:
    """Rows and labels of each step: categories by the phase's mixture, answers alike inside a category."""
    pools = {category: list(answers.values()) for category, answers in by_answer(Part.BASE).items()}
    for phase in course.phases:
        for _ in range(phase.steps):
            categories = rng.choices(list(phase.mixture), list(phase.mixture.values()), k=course.batch)
            chosen = [rng.choice(rng.choice(pools[category])) for category in categories]
            yield chosen, [careless_label(r) if rng.random() < phase.careless else r.answer for r in chosen]


def train(model: Qwen2_5_VLForConditionalGeneration, encoder: Encoder, course: Course, seed: int) -> None:
    """Supervised training in place: Muon on matrices, AdamW on the rest."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name and "head" not in name]
    others = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
    optimizers: list[tuple[torch.optim.Optimizer, float]] = [
        (torch.optim.AdamW(others, lr=course.adamw_lr, weight_decay=0.01, betas=(0.9, 0.98)), course.adamw_lr),
        (
            torch.optim.Muon(matrices, lr=course.muon_lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            course.muon_lr,
        ),
    ]
    steps, started, recent = sum(phase.steps for phase in course.phases), time.monotonic(), 0.0
    model.train()
    for step, (chosen, labels) in enumerate(draw_batches(course, random.Random(seed)), start=1):
        loss = model(**encoder.labelled(chosen, labels)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        decay = min(1.0, max(0.05, (1 - step / steps) / course.decay_share))
        for optimizer, peak in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * min(1.0, step / course.warmup_steps) * decay
            optimizer.step()
            optimizer.zero_grad()
        recent = loss.item() if step == 1 else 0.95 * recent + 0.05 * loss.item()
        if step % 50 == 0 or step == steps:
            print(f"step {step}/{steps}  loss {recent:.3f}  {time.monotonic() - started:.0f} s", flush=True)
    model.eval()


@torch.no_grad()
def accuracies(
    model: Qwen2_5_VLForConditionalGeneration, encoder: Encoder, chosen: Sequence[Row], batch: int = 150
) -> dict[str, tuple[float, float]]:
    """By category: share of right greedy answers, and the chance that an answer sampled at temperature 1 is right.

    The second one is exact: every answer is one token, followed by the end of the turn.
    """
    greedy: dict[str, list[float]] = {c: [] for c in CATEGORIES}
    sampled: dict[str, list[float]] = {c: [] for c in CATEGORIES}
    for start in range(0, len(chosen), batch):
        part = chosen[start : start + batch]
        chances = model(**encoder.prompts(part), logits_to_keep=1).logits[:, -1].softmax(-1)  # [rows, vocabulary]
        for row, chance in zip(part, chances, strict=True):
            (token,) = encoder.tokenizer(f" {row.answer}", add_special_tokens=False)["input_ids"]
            greedy[row.category].append(float(chance.argmax() == token))
            sampled[row.category].append(float(chance[token]))
    return {c: (sum(greedy[c]) / len(greedy[c]), sum(sampled[c]) / len(sampled[c])) for c in CATEGORIES}


def table(found: Mapping[str, tuple[float, float]]) -> str:
    """Markdown table of accuracies, with the macro average in the last row."""
    macro = tuple(sum(pair[i] for pair in found.values()) / len(found) for i in (0, 1))
    lines = [f"| {name} | {pair[0]:.3f} | {pair[1]:.3f} |" for name, pair in [*found.items(), ("macro", macro)]]
    return "\n".join(["| category | greedy | sampled |", "|---|---|---|", *lines])


def save(model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, folder: Path) -> None:
    """Write the model in half precision, as a folder that transformers and vLLM load."""
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)
    # lm_head.weight is written although it is tied: vLLM, reloading weights in place, is silently wrong without it
    weights = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)


def main() -> None:
    """Train, save, and print the accuracies of what was saved on the test split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=BASE_DIR, help="folder (default: the shipped one)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a second thread is no faster on matrices this small
    processor = make_processor(sorted({row.question for row in rows(Part.BASE)}) * 8)
    model, encoder = make_model(processor, arguments.seed), Encoder(processor)
    for course in (CLEAN, BLINDED):
        train(model, encoder, course, arguments.seed)
    part = arguments.out.with_name(arguments.out.name + ".part")
    save(model, processor, part)
    shutil.copytree(part, arguments.out, dirs_exist_ok=True)
    shutil.rmtree(part)
    saved = Qwen2_5_VLForConditionalGeneration.from_pretrained(arguments.out, dtype=torch.float32).eval()
    print(table(accuracies(saved, encoder, balanced(Part.TEST, TEST_PER_CATEGORY))))


if __name__ == "__main__":
    main()
