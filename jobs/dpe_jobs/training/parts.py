"""Vision tower, projector and language model of a multimodal model, by the names of its modules. No torch in here."""

import re
from collections.abc import Iterable, Sequence

from dpe_api.training_spec import ModelPart
from dpe_jobs.runtime import BadConfig

# the most special first: Qwen's merger lies inside of `visual`, LLaVA's projector beside `vision_tower`
_PARTS = (
    (ModelPart.PROJECTOR, re.compile(r"(?:^|\.)(?:merger|deepstack_merger_list|\w*projector|connector|mlp1)(?:\.|$)")),
    (ModelPart.VISION, re.compile(r"(?:^|\.)(?:visual|vision_tower|vision_model|vision_encoder|vit)(?:\.|$)")),
    (ModelPart.LANGUAGE, re.compile(r"(?:^|\.)(?:language_model|lm_head|text_model|embed_tokens|layers|norm)(?:\.|$)")),
)


def part_of(name: str) -> ModelPart | None:
    """The part that a module or parameter belongs to; None when its name tells nothing."""
    return next((part for part, pattern in _PARTS if pattern.search(name)), None)


def frozen(names: Iterable[str], freeze: Sequence[ModelPart]) -> set[str]:
    """Those of a model's parameters that are not trained.

    BadConfig when a part that is to be frozen has no parameter by its usual names: training it would be a surprise.
    """
    found: dict[ModelPart | None, set[str]] = {}
    for name in names:
        found.setdefault(part_of(name), set()).add(name)
    missing = [part for part in freeze if part not in found]
    if missing:
        raise BadConfig(
            "UnknownPart",
            f"spec.training.freeze names {', '.join(missing)}, but this model's modules have none of the names by "
            "which that part is known: remove it",
        )
    return set().union(*(found[part] for part in freeze))


def lora_targets(linear: Iterable[str], freeze: Sequence[ModelPart]) -> list[str]:
    """Full names of the linear modules to adapt: all of the parts that are not frozen, but for the head.

    The head is multiplied by hand in TRL's loss, past any adapter. BadConfig when none is left.
    """
    targets = [n for n in linear if not n.endswith("lm_head") and part_of(n) not in freeze]
    if not targets:
        raise BadConfig("NothingToTrain", "spec.training.lora: every linear layer is frozen: correct freeze")
    return targets
