"""What is trained of a model: all of it, what is not frozen, or adapters on top."""

from typing import Any

import torch
from torch import nn

from dpe_api.training_spec import Lora, ModelPart, Training
from dpe_jobs.runtime import BadConfig
from dpe_jobs.training import parts


def _shell(folder: str) -> nn.Module:
    """The model's modules without weights: their names are needed before the trainer loads it."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))


def peft_config(training: Training, folder: str) -> Any | None:
    """Peft's LoraConfig, or None for full weights. BadConfig when the targets fit no module."""
    lora = training.lora
    if lora is None:
        return None
    from peft import LoraConfig

    linear = [name for name, module in _shell(folder).named_modules() if isinstance(module, nn.Linear)]
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_targets(lora, training.freeze, linear),
        task_type="CAUSAL_LM",
    )


def _targets(lora: Lora, freeze: list[ModelPart], linear: list[str]) -> list[str]:
    possible = parts.lora_targets(linear, freeze)
    if not lora.target_modules:
        return possible
    chosen = [n for n in possible if any(n == t or n.endswith("." + t) for t in lora.target_modules)]
    unused = [t for t in lora.target_modules if not any(n == t or n.endswith("." + t) for n in chosen)]
    if unused:
        known = ", ".join(sorted({n.rsplit(".", 1)[-1] for n in possible}))
        raise BadConfig(
            "UnknownModule",
            f"spec.training.lora.targetModules: {', '.join(unused)} is no linear layer that is trained; there "
            f"are: {known}",
        )
    return chosen


def freeze_parts(model: nn.Module, freeze: list[ModelPart]) -> None:
    """Stop the named parts from being trained. BadConfig when the model has none by their usual names."""
    if not freeze:
        return
    fixed = parts.frozen([name for name, _ in model.named_parameters()], freeze)
    for name, parameter in model.named_parameters():
        if name in fixed:
            parameter.requires_grad_(False)


def let_gradients_in(model: nn.Module) -> None:
    """Let gradients reach the adapters of a vision tower whose layers are recomputed in the backward pass.

    With ZeRO-3 adapters are trained with reentrant checkpointing, which has no gradient for a layer whose input has
    none. transformers gives one to the embeddings that a model names, and Qwen3-VL's tower names none.
    """
    from transformers import PreTrainedModel

    def require_grad(_module: nn.Module, _inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        output.requires_grad_(True)

    for tower in model.modules():
        patches = getattr(tower, "patch_embed", None)
        if not isinstance(tower, PreTrainedModel) or patches is None:
            continue
        try:
            tower.get_input_embeddings()
        except NotImplementedError:
            if any(parameter.requires_grad for parameter in tower.parameters()):
                patches.register_forward_hook(require_grad)
