import subprocess
import sys

import pytest

SLOW = ("lancedb", "pydantic_ai", "openai", "datasketch", "torch", "transformers")
"""Seconds of CPU each, that every pod would pay at every start."""


@pytest.mark.parametrize("stage", ["diagnosis", "generation", "evaluation", "serving", "training"])
def test_a_stage_imports_what_pools_agents_and_models_need_only_when_it_has_them(stage: str) -> None:
    program = f"import sys, dpe_jobs.{stage}.run; print(*sorted(set({SLOW!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
