"""Ends of real outputs of vLLM 0.32 with models and arguments made wrong on purpose, shortened."""

import pytest

from dpe_jobs.serving.output import Fault, fault, root_cause, wrong_arguments

PYDANTIC = "pydantic_core._pydantic_core.ValidationError"
TRUNCATED = """\
(APIServer pid=1) WARNING 11-23 16:56:01 [system_utils.py:255] Found ulimit of 20000 and failed to automatically \
increase with error current limit exceeds maximum limit. This can cause fd limit errors like `OSError: [Errno 24] Too \
many open files`. Consider increasing with ulimit -n
(Worker pid=3) ERROR 11-23 16:56:21 [multiproc_executor.py:953] Traceback (most recent call last):
(Worker pid=3) ERROR 11-23 16:56:21 [multiproc_executor.py:953]     with safe_open(st_file, framework="pt") as f:
(Worker pid=3) ERROR 11-23 16:56:21 [multiproc_executor.py:953] safetensors._safetensors_rust.SafetensorError: Error \
while deserializing header: incomplete metadata, file not fully covered
(APIServer pid=1)     raise RuntimeError(
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
KILLED_ON_A_GPU = """\
(EngineCore pid=2) WARNING 11-27 09:31:39 [import_utils.py:417] Module vllm.third_party.deep_gemm was found but failed \
to import
(EngineCore pid=2) WARNING 11-27 09:31:39 [import_utils.py:417] Traceback (most recent call last):
(EngineCore pid=2) WARNING 11-27 09:31:39 [import_utils.py:417]     assert len(so_files) == 1, (
(EngineCore pid=2) WARNING 11-27 09:31:39 [import_utils.py:417] AssertionError: Expected one _C_extension*.so file, \
found 0: []
(EngineCore pid=2) INFO 11-27 09:31:40 [core.py:402] init engine (profile, create kv cache, warmup model) took 4.51 s
(APIServer pid=1) ERROR 11-27 09:31:44 [async_llm.py:906] Traceback (most recent call last):
(APIServer pid=1) ERROR 11-27 09:31:44 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: EngineCore \
encountered an issue. See stack trace (above) for the root cause.
INFO:     Finished server process [1]
"""
LENGTH = """\
Traceback (most recent call last):
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (999999) is greater than the derived max_model_len. \
Positions exceeding it can cause CUDA array out-of-bounds errors. [type=value_error, a=1]
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""
SEQUENCES = """\
pydantic_core._pydantic_core.ValidationError: 2 validation errors for SchedulerConfig
max_num_batched_tokens
  Input should be greater than or equal to 1 [type=greater_than_equal, input_value=0, input_type=int]
    For further information visit https://errors.pydantic.dev/2.14/v/greater_than_equal
max_num_seqs
  Input should be greater than or equal to 1 [type=greater_than_equal, input_value=0, input_type=int]
    For further information visit https://errors.pydantic.dev/2.14/v/greater_than_equal
"""
ARCHITECTURE = """\
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, The checkpoint you are trying to load has model type `nosuch` but Transformers does not recognize this \
architecture.
"""
ENGINE = """\
(EngineCore pid=2) ERROR 11-23 16:22:38 [core.py:1512] RuntimeError: Worker failed with error 'CPU Generator does not \
use offset', please check the stack trace above for the root cause
(APIServer pid=1) ERROR 11-23 16:22:38 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: EngineCore \
encountered an issue. See stack trace (above) for the root cause.
(APIServer pid=1) INFO 11-23 16:22:38 [core_client.py:777] [shutdown] MPClient: complete
"""


@pytest.mark.parametrize(
    ("output", "cause", "whose"),
    [
        (
            TRUNCATED,
            "safetensors._safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, "
            "file not fully covered",
            Fault.MODEL,
        ),
        (
            LENGTH,
            f"{PYDANTIC}: 1 validation error for ModelConfig Value error, User-specified "
            "max_model_len (999999) is greater than the derived max_model_len. Positions exceeding it can cause CUDA "
            "array out-of-bounds errors.",
            Fault.ARGUMENTS,
        ),
        (
            SEQUENCES,
            f"{PYDANTIC}: 2 validation errors for SchedulerConfig max_num_batched_tokens "
            "Input should be greater than or equal to 1 max_num_seqs Input should be greater than or equal to 1",
            Fault.ARGUMENTS,
        ),
        (
            ARCHITECTURE,
            f"{PYDANTIC}: 1 validation error for ModelConfig Value error, The checkpoint "
            "you are trying to load has model type `nosuch` but Transformers does not recognize this architecture.",
            Fault.MODEL,
        ),
        (
            ENGINE,
            "RuntimeError: Worker failed with error 'CPU Generator does not use offset', please check the stack trace "
            "above for the root cause",
            Fault.MODEL,
        ),
    ],
)
def test_the_root_cause_is_found_in_real_output(output, cause, whose):
    assert root_cause(output.splitlines(keepends=True)) == cause
    assert fault(cause) is whose


@pytest.mark.parametrize(
    "cause",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "ValueError: Free memory on device cuda:0 (3/79 GiB) on startup is less than desired GPU memory utilization",
        "OSError: [Errno 98] Address already in use",
        "OSError: [Errno 28] No space left on device",
        "RuntimeError: NCCL error: unhandled system error",
        "ImportError: libcuda.so.1: cannot open shared object file",
    ],
)
def test_trouble_of_the_machine_is_not_the_models_fault(cause):
    assert fault(cause) is Fault.MACHINE


def test_a_model_too_long_for_the_memory_is_a_matter_of_arguments():
    cause = "ValueError: To serve at least one request with max seq len 8192, 9 GiB KV cache is needed"
    assert fault(cause) is Fault.ARGUMENTS


def test_what_vllm_warned_of_and_went_on_without_is_not_why_it_died():
    assert root_cause(KILLED_ON_A_GPU.splitlines(keepends=True)) is None


def test_output_without_an_error_has_no_cause():
    assert root_cause(["INFO 11-23 16:00:00 [a.py:1] all is well\n", "\n"]) is None
    assert root_cause([]) is None
    assert wrong_arguments(["all is well\n"]) is None


def test_refused_arguments_are_found():
    lines = ["usage: api_server.py [-h]\n", "api_server.py: error: unrecognized arguments: --no-such-flag\n"]
    assert wrong_arguments(lines) == "unrecognized arguments: --no-such-flag"
