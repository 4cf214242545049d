"""The page of all iterations."""

from dev.dashboards.tables import (
    CHOICE_OF_SOURCE,
    GPU_HOURS,
    ITERATION,
    MACRO,
    NAMESPACE,
    OPERATOR,
    Dashboard,
    Panel,
    of_operator,
    quantile,
    rate,
)

_ATTEMPTS = f"round(sum by (stage, outcome) (increase(dpe_stage_attempts_total{{{OPERATOR}}}[$__range]))) > 0"
_DURATION = " / ".join(f"sum by (stage) (dpe_stage_duration_seconds_{part}{{{OPERATOR}}})" for part in ("sum", "count"))

PAGE = Dashboard(
    "overview",
    "DPE: iterations",
    "All DPEIterations: where they are, what they brought and cost, and how the operator is doing.",
    {
        "Iterations": (
            Panel(
                "By phase",
                "stat",
                (
                    (f"sum by (phase) (dpe_iterations{{{OPERATOR}}})", "{{phase}}"),
                    (f"sum(dpe_iterations_queued{{{OPERATOR}}})", "queued"),
                ),
                width=24,
            ),
            Panel(
                "Iterations",
                "table",
                ((f"{of_operator('dpe_iteration_phase')} == 1", "{{namespace}}/{{iteration}} {{phase}}"),),
                width=8,
            ),
            Panel(
                "Accuracy before and after",
                "bargauge",
                ((MACRO, "{{iteration}} {{model}}"),),
                "percentunit",
                most=1,
                about="Macro average over the categories of the first benchmark, or of the probe.",
            ),
            Panel(
                "Progress of running stages",
                "timeseries",
                ((of_operator("dpe_stage_progress_ratio"), "{{iteration}} {{stage}}"),),
                "percentunit",
                most=1,
            ),
        ),
        "Stages": (
            Panel(
                "Mean duration of finished stages",
                "bargauge",
                (
                    (
                        _DURATION,
                        "{{stage}}",
                    ),
                ),
                "s",
                width=6,
            ),
            Panel(
                "Ended attempts",
                "bargauge",
                (
                    (
                        _ATTEMPTS,
                        "{{stage}} {{outcome}}",
                    ),
                ),
                width=6,
                about="In the time range. Failed attempts are charged, disrupted ones are not; both cost GPU time.",
            ),
            Panel(
                "Samples",
                "bargauge",
                ((f"sum by (outcome) ({of_operator('dpe_iteration_samples')})", "{{outcome}}"),),
                width=6,
                about="Candidates of the generation by what became of them.",
            ),
            Panel(
                "Samples of all generations",
                "timeseries",
                ((f"sum by (outcome) (dpe_samples_total{{{OPERATOR}}})", "{{outcome}}"),),
                width=6,
                about="Of generations that ended since the operator was started, also of iterations that are deleted.",
            ),
        ),
        "Cost": (
            Panel("GPU hours by iteration", "bargauge", ((GPU_HOURS, "{{iteration}}"),), "h"),
            Panel(
                "GPU hours by stage and pool",
                "bargauge",
                (
                    (
                        f"sum by (stage, pool) (increase(dpe_gpu_seconds_total{{{OPERATOR}}}[$__range])) / 3600 > 0",
                        "{{stage}} {{pool}}",
                    ),
                ),
                "h",
                about="Of attempts that ended in the time range, also by a deletion of their iteration.",
            ),
            Panel(
                "Tokens by model server",
                "timeseries",
                (
                    (
                        f"sum by (endpoint, direction) (increase(dpe_tokens_total{{{OPERATOR}}}[$__range]))",
                        "{{endpoint}} {{direction}}",
                    ),
                ),
                about="Counted when a stage ends.",
            ),
        ),
        "Operator": (
            Panel("Up", "timeseries", ((f"up{{{OPERATOR}}}", "{{pod}}"),), width=6, most=1),
            Panel(
                "Not looked after",
                "timeseries",
                ((f"max by (pod) (dpe_stale_iterations{{{OPERATOR}}})", "{{pod}}"),),
                width=6,
            ),
            Panel(
                "One look at an iteration",
                "timeseries",
                tuple(
                    (quantile(q, f"dpe_reconcile_duration_seconds_bucket{{{OPERATOR}}}"), f"p{q * 100:.0f}")
                    for q in (0.5, 0.99)
                ),
                "s",
                width=6,
            ),
            Panel(
                "Errors",
                "timeseries",
                (
                    (rate(f"dpe_reconcile_errors_total{{{OPERATOR}}}", "pod"), "looks at iterations"),
                    (rate(f"dpe_store_errors_total{{{OPERATOR}}}", "kind"), "object store {{kind}}"),
                ),
                "reqps",
                width=6,
            ),
            Panel(
                "Requests to the API server",
                "timeseries",
                ((rate(f"dpe_api_requests_total{{{OPERATOR}}}", "method"), "{{method}}"),),
                "reqps",
                width=6,
            ),
        ),
    },
    (CHOICE_OF_SOURCE, NAMESPACE, ITERATION),
)
