"""A tiny Qwen3-VL that knows colours, half of the fine ones: `python -m tests.e2e.qwen3_base` makes qwen3/ anew.

Four minutes of one core. 0.5M weights in half precision, trained as the example's base model is, on the same pictures.
Greedy accuracy on 60 questions of each category of the test split: color .98, color_fine .42, all others about chance.
"""

import tempfile
from pathlib import Path

import torch
from examples.shapes.base_model import Course, Encoder, Phase, accuracies, save, table, train
from examples.shapes.data import Part, balanced
from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

from tests.training import tiny_qwen3

FOLDER = Path(__file__).parent / "qwen3"
COURSE = Course(
    phases=(
        Phase(400, {"color": 1, "color_fine": 0.5, "shape": 1, "exist_color": 0.5}),
        Phase(60, {"color": 1, "color_fine": 1.2, "shape": 1}, careless=0.5),
    ),
    adamw_lr=1e-3,
    muon_lr=6e-3,
    warmup_steps=20,
)


def main() -> None:
    """Train, save, and print the accuracies of what was saved."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as untrained:
        tiny_qwen3.write(Path(untrained))
        processor = AutoProcessor.from_pretrained(untrained)
        model = Qwen3VLForConditionalGeneration.from_pretrained(untrained, dtype=torch.float32)
    encoder = Encoder(processor)
    train(model, encoder, COURSE, 0)
    save(model, processor, FOLDER)
    saved = Qwen3VLForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32).eval()
    print(table(accuracies(saved, encoder, balanced(Part.TEST, 60))))


if __name__ == "__main__":
    main()
