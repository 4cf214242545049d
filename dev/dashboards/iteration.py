"""The page of single iterations."""

from dev.dashboards.tables import (
    CHOICE_OF_SOURCE,
    GPU_HOURS,
    ITERATION,
    MACRO,
    NAMESPACE,
    Dashboard,
    Panel,
    of_operator,
    of_stages,
    of_vllm,
    quantile,
    rate,
)

_AFTER = ',model="after"'
_PRICE = {
    "name": "gpu_hour_price",
    "type": "textbox",
    "label": "Price of a GPU hour",
    "query": "2",
    "current": {"text": "2", "value": "2", "selected": True},
    "options": [],
    "hide": 0,
    "skipUrlSync": False,
}


def _training(title: str, unit: str, *names: str) -> Panel:
    queries = tuple(
        (f"max by (namespace, iteration) ({of_stages(f'dpe_training_{name}')})", f"{{{{iteration}}}} {name}")
        for name in names
    )
    return Panel(title, "timeseries", queries, unit)


PAGE = Dashboard(
    "iteration",
    "DPE: one iteration",
    "Stages, accuracy by category, samples, cost, model servers and training curves of the chosen iterations.",
    {
        "Stages": (
            Panel("Phase", "stat", ((f"{of_operator('dpe_iteration_phase')} == 1", "{{iteration}}: {{phase}}"),)),
            Panel(
                "Progress",
                "timeseries",
                ((of_operator("dpe_stage_progress_ratio"), "{{iteration}} {{stage}}"),),
                "percentunit",
                most=1,
            ),
            Panel(
                "Finished items",
                "timeseries",
                (
                    (
                        f"max by (iteration, stage, attempt) ({of_stages('dpe_stage_items_done')})",
                        "{{stage}} {{attempt}}",
                    ),
                ),
                about="As the stage's own pod counts them: questions, samples or steps.",
            ),
        ),
        "Accuracy": (
            Panel(
                "By category",
                "bargauge",
                ((of_operator("dpe_iteration_accuracy"), "{{category}} {{model}} {{iteration}}"),),
                "percentunit",
                most=1,
            ),
            Panel(
                "By category over rounds",
                "timeseries",
                ((of_operator("dpe_iteration_accuracy", _AFTER), "{{category}} {{iteration}}"),),
                "percentunit",
                most=1,
                about="Choose the iterations of one series: each adds its lines when it ends.",
            ),
            Panel("Macro average", "timeseries", ((MACRO, "{{iteration}} {{model}}"),), "percentunit", most=1),
        ),
        "Samples and cost": (
            Panel(
                "Samples",
                "bargauge",
                (
                    (
                        f"sum by (iteration, outcome) ({of_operator('dpe_iteration_samples')})",
                        "{{iteration}} {{outcome}}",
                    ),
                ),
                width=6,
            ),
            Panel(
                "Candidates per second",
                "timeseries",
                ((rate(of_stages("dpe_samples_total"), "outcome"), "{{outcome}}"),),
                width=6,
            ),
            Panel("GPU hours", "stat", ((GPU_HOURS, "{{iteration}}"),), "h", width=4),
            Panel("Price of the GPUs", "stat", ((f"{GPU_HOURS} * $gpu_hour_price", "{{iteration}}"),), width=4),
            Panel("Tokens", "stat", ((of_operator("dpe_iteration_tokens"), "{{iteration}}"),), width=4),
        ),
        "Model servers": (
            Panel(
                "vLLM: tokens per second",
                "timeseries",
                (
                    (rate(of_vllm("vllm:generation_tokens_total"), "stage"), "{{stage}} generated"),
                    (rate(of_vllm("vllm:prompt_tokens_total"), "stage"), "{{stage}} read"),
                ),
            ),
            Panel(
                "vLLM: requests",
                "timeseries",
                (
                    (f"sum by (stage) ({of_vllm('vllm:num_requests_running')})", "{{stage}} running"),
                    (f"sum by (stage) ({of_vllm('vllm:num_requests_waiting')})", "{{stage}} waiting"),
                ),
            ),
            Panel(
                "vLLM: time to the first token",
                "timeseries",
                tuple(
                    (
                        quantile(q, of_vllm("vllm:time_to_first_token_seconds_bucket"), ", stage"),
                        f"{{{{stage}}}} p{q * 100:.0f}",
                    )
                    for q in (0.5, 0.95)
                ),
                "s",
            ),
            Panel(
                "vLLM: KV cache in use",
                "timeseries",
                ((f"max by (stage) ({of_vllm('vllm:kv_cache_usage_perc')})", "{{stage}}"),),
                "percentunit",
                most=1,
            ),
            Panel(
                "Requests to models",
                "timeseries",
                ((rate(of_stages("dpe_requests_total"), "stage, endpoint"), "{{stage}} {{endpoint}}"),),
                "reqps",
            ),
            Panel(
                "Requests without an answer",
                "timeseries",
                (
                    (
                        f"{rate(of_stages('dpe_request_errors_total'), 'stage, endpoint')}"
                        f" or {rate(of_stages('dpe_requests_total'), 'stage, endpoint')} * 0",
                        "{{stage}} {{endpoint}}",
                    ),
                ),
                "reqps",
            ),
        ),
        "Training": (
            _training("Reward", "short", "reward", "reward_std"),
            _training("Loss", "short", "loss"),
            _training("Entropy", "short", "entropy"),
            _training("Groups without a gradient, completions cut off", "percentunit", "zero_std_share", "cut_share"),
            _training("Gradient norm", "short", "grad_norm"),
            _training("Learning rate", "sci", "learning_rate"),
            _training("Completion length", "short", "completion_length"),
            _training("Seconds per step", "s", "seconds_per_step"),
            Panel(
                "Tokens per second",
                "timeseries",
                ((rate(of_stages("dpe_tokens_total"), "stage, endpoint, direction"), "{{stage}} {{direction}}"),),
                about="Of the stages that ask a model.",
            ),
        ),
    },
    (CHOICE_OF_SOURCE, NAMESPACE, ITERATION, _PRICE),
)
