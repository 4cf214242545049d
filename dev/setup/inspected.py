"""What vLLM must know of a model's class before it starts, looked up once for the models of this checkout.

A server looks in a process of its own, which imports all of vLLM: 20 s of CPU, a third of its start. It keeps what it
found in its cache folder, which a pod loses when it ends. So that lies beside the packages, and pods read it there:
VLLM_CACHE_ROOT in dev/values.yaml. `python -m dev.setup.inspected FOLDER` writes them.
"""

import os
import shutil
import sys
from pathlib import Path

from dev import paths
from dev.setup.steps import call, timed

ARCHITECTURES = ("Qwen2_5_VLForConditionalGeneration", "Qwen3VLForConditionalGeneration")
_STAMP = ".complete"


def ensure() -> None:
    """The answers, in the environment's share/vllm; SetupError with vLLM's words."""
    folder = paths.venv() / "share" / "vllm"
    if (folder / _STAMP).exists():
        return
    with timed("vLLM's model classes"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        call(
            [paths.venv() / "bin" / "python", "-m", "dev.setup.inspected", folder],
            "python",
            env={"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": ""},
            cwd=paths.CHECKOUT,
        )
        (folder / _STAMP).touch()


def _write(folder: Path) -> None:
    os.environ["VLLM_CACHE_ROOT"] = str(folder)
    from vllm.model_executor.models import registry

    for name in ARCHITECTURES:
        known = registry.ModelRegistry.models[name]
        assert isinstance(known, registry._LazyRegisteredModel)
        # as inspect_model_cls does, without another process for each
        info = registry._ModelInfo.from_model_cls(known.load_model_cls())
        module = Path(registry.__file__).with_name(f"{known.module_name.rsplit('.', 1)[-1]}.py")
        source = known._get_modelinfo_module_hash(module)
        known._save_modelinfo_to_cache(info, source)
        if known._load_modelinfo_from_cache(source) is None:
            raise SystemExit(f"vLLM did not keep what it found out about {name} in {folder}")
    for file in folder.rglob("*.json"):
        file.chmod(0o644)  # vLLM writes them for its own user alone, and takes one that it cannot read for missing


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
