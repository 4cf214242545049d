"""The trained model on disk, as any loader reads it."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dpe_jobs.runtime import ProgramDied

log = logging.getLogger(__name__)

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_HEAD = "lm_head.weight"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".index.json")
_OWN = ("config.json",)  # written by the trainer: it knows the number format
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_NOT_MODEL = ("manifest.json", "training_args.bin")


def _embedding(names: list[str]) -> str:
    found = [n for n in names if n.endswith("embed_tokens.weight")]
    if len(found) != 1:
        raise ProgramDied("NoEmbedding", f"the saved model has {len(found)} token embeddings, not one: {found}")
    return found[0]


def write_head(folder: Path) -> None:
    """Write lm_head.weight even where it is tied to the embedding and savers leave it out.

    A server that reloads such a file in place keeps the old head and answers with the wrong log-probs, silently.
    """
    index_file = folder / _INDEX
    if index_file.exists():
        index = json.loads(index_file.read_text())
        places = index["weight_map"]
        if _HEAD in places:
            return
        name = _embedding(list(places))
        with safe_open(folder / places[name], "pt") as shard:
            head = shard.get_tensor(name)
        file = "model-lm-head.safetensors"
        save_file({_HEAD: head}, folder / file, metadata={"format": "pt"})
        places[_HEAD] = file
        index["metadata"]["total_size"] += head.numel() * head.element_size()
        index_file.write_text(json.dumps(index, indent=2) + "\n")
        return
    with safe_open(folder / _SINGLE, "pt") as shard:
        names = list(shard.keys())
    if _HEAD in names:
        return
    tensors = load_file(folder / _SINGLE)
    tensors[_HEAD] = tensors[_embedding(names)].clone()
    save_file(tensors, folder / _SINGLE, metadata={"format": "pt"})


def merge(base: Path, adapter: Path, target: Path) -> float:
    """Write the base model with an adapter's updates added to its weights, on the CPU of one rank.

    Returns the share of the updates that the weights' number format could take. In bf16, which has 8 bits, an update
    below a 256th of its weight is rounded away: the merged model then has not learned what the adapter has.
    """
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from transformers import AutoModelForImageTextToText
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # else ZeRO-3 cuts the model that is loaded here, waiting for the other ranks
    model = AutoModelForImageTextToText.from_pretrained(base, dtype="auto")
    adapted = PeftModel.from_pretrained(model, adapter)
    taken = wanted = 0.0
    layers: list[Any] = [module for module in adapted.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        (name,) = layer.active_adapters
        update = layer.get_delta_weight(name).float()
        weight = layer.get_base_layer().weight
        before = weight.detach().float().clone()
        layer.merge(adapter_names=[name])
        taken += float(((weight.detach().float() - before) * update).sum())
        wanted += float((update * update).sum())
    adapted.merge_and_unload().save_pretrained(target)
    share = taken / wanted if wanted else 1.0
    log.info("the merged weights took %.0f%% of the adapter's updates", 100 * share)
    return share


def join(first: Path, second: Path) -> None:
    """Make the second adapter, trained on top of the first one, an adapter of the first one's base: of both ranks.

    The updates add up: B1 A1 + B2 A2 = [B1 B2] [A1; A2], A: [r, in], B: [out, r]. alpha grows as r does.
    """
    config_file, weights_file = (second / name for name in _ADAPTER)
    ours, theirs = load_file(second / _ADAPTER[1]), load_file(first / _ADAPTER[1])
    # A is cut by rows, B by columns
    both = {n: torch.cat([theirs[n], ours[n]], dim=0 if ".lora_A." in n else 1).contiguous() for n in ours}
    save_file(both, weights_file, metadata={"format": "pt"})
    config = json.loads(config_file.read_text())
    config_file.write_text(json.dumps({**config, "r": 2 * config["r"], "lora_alpha": 2 * config["lora_alpha"]}))


def complete_adapter(folder: Path, base_uri: str) -> None:
    """Make a saved adapter one that others can load: it names its base by address, and holds nothing else."""
    config = folder / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": base_uri}, indent=2))
    for path in folder.iterdir():
        if path.name not in _ADAPTER:
            path.unlink()
        else:
            path.chmod(0o644)


def complete(folder: Path, base: Path) -> None:
    """Make a folder with saved weights a whole model: head, the base's tokenizer, processor and template, modes.

    Training changes weights only, so everything else is the base's, byte for byte.
    """
    write_head(folder)
    for path in sorted(base.iterdir()):
        if path.is_file() and path.name not in (*_OWN, *_NOT_MODEL) and not path.name.endswith(_WEIGHTS):
            shutil.copyfile(path, folder / path.name)
    for name in _NOT_MODEL:
        (folder / name).unlink(missing_ok=True)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)  # safetensors writes 0600: unreadable to another uid
