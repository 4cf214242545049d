"""The trained model on disk, as any loader reads it."""

import json
import shutil
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dpe_jobs.runtime import ProgramDied

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_HEAD = "lm_head.weight"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".index.json")
_OWN = ("config.json",)  # written by the trainer: it knows the number format
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
