"""What of an adapter arrives in the merged model, which is the one that is judged and goes on."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.training.support import BASE
from transformers import AutoModelForImageTextToText

from dpe_jobs.training.weights import merge


@pytest.mark.parametrize(
    ("dtype", "size", "least", "most"),
    [
        (torch.float32, 1e-6, 0.999, 1.001),
        (torch.bfloat16, 1e-2, 0.9, 1.1),
        (torch.bfloat16, 1e-6, 0.0, 0.2),
    ],
)
def test_the_share_of_the_updates_that_the_number_format_took_is_told(
    tmp_path: Path, dtype: torch.dtype, size: float, least: float, most: float
) -> None:
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_pretrained(BASE, dtype=dtype)
    model.save_pretrained(tmp_path / "base")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=size)
    adapted.save_pretrained(tmp_path / "adapter")
    share = merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    assert least <= share <= most
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", dtype="auto").state_dict()
    assert {t.dtype for t in merged.values()} == {dtype}
    changed = {name for name in merged if not torch.equal(merged[name], before[name])}
    assert changed == {n for n in before if n.endswith("q_proj.weight")} or most < 0.5
