"""From what a person wrote to what the iteration runs with, and why it cannot start. Pure."""

from dpe_api import trainer_arguments
from dpe_api.generation_spec import Review, SourceKind
from dpe_api.names import Stage
from dpe_api.spec import ResolvedSpec, Spec
from dpe_api.status import Phase, Resolved
from dpe_operator.platform import Platform
from dpe_operator.world import Previous, Problem


def reference_problem(spec: Spec, previous: Previous | None) -> Problem | None:
    """Why the iteration that `spec.model.iterationRef` names cannot be continued from; None when it can."""
    reference = spec.model.iteration_ref
    if reference is None:
        return None
    where = f"spec.model.iterationRef.name is {reference.name}"
    if previous is None:
        return Problem("IterationNotFound", f"{where}: no such DPEIteration in this namespace: create it or correct it")
    if previous.unreadable:
        return Problem("IterationUnreadable", f"{where}, whose {previous.unreadable}")
    phase = previous.status.phase
    if phase is Phase.FAILED:
        return Problem(
            "IterationFailed",
            f"{where}, which has failed: create it anew after mending its cause, or name one that succeeded",
        )
    if not phase.is_final:
        # without the phase: the same trouble is one Event, however far the other one gets
        return Problem("IterationNotFinished", f"{where}, which has not finished: this one starts when it has")
    if previous.status.model is None or previous.status.resolved is None:
        return Problem("IterationHasNoModel", f"{where}, whose status names no model: name another one")
    return None


def pool_problems(resolved: ResolvedSpec, platform: Platform) -> list[Problem]:
    """Pools that the platform does not have."""
    known = ", ".join(sorted(platform.pools)) or "none"
    wanted = {"spec.serving.pool": resolved.serving.pool, "spec.training.pool": resolved.training.pool}
    return [
        Problem("UnknownPool", f"{field} is {pool}; the pools of this cluster are {known}: write one of them")
        for field, pool in wanted.items()
        if pool not in platform.pools
    ]


def endpoint_problems(resolved: ResolvedSpec) -> list[Problem]:
    """Endpoints that are named but not listed, in the spec or in the one that it continues."""
    known = ", ".join(e.name for e in resolved.endpoints) or "none"
    return [
        Problem(
            "UnknownEndpoint",
            f"{field} is {name}; the entries of spec.endpoints are {known}: add it or correct the name",
        )
        for field, name in resolved.unknown_endpoints().items()
    ]


def lmms_eval_problems(resolved: ResolvedSpec, platform: Platform) -> list[Problem]:
    """Public benchmarks on a platform that lends no data for them."""
    tasks = resolved.evaluation.lmms_eval
    if not tasks or platform.lmms_eval is not None:
        return []
    return [
        Problem(
            "NoLmmsEval",
            f"spec.evaluation.lmmsEval has {', '.join(t.task for t in tasks[:4])}, but the platform lends no data for "
            "lmms-eval: set the Helm value lmmsEval.data to a volume that holds it, or leave the section out",
        )
    ]


def trainer_problems(resolved: ResolvedSpec) -> list[Problem]:
    """Arguments for TRL that it does not know, or that are set elsewhere."""
    return [Problem("TrainerArgument", why) for why in trainer_arguments.problems(resolved.training.trainer.extra)]


def keeping_problems(resolved: ResolvedSpec) -> list[Problem]:
    """Servers that are to be kept where they are stopped before training anyway."""
    if not resolved.serving.keep_running or resolved.generation.review is not Review.REQUIRED:
        return []
    return [
        Problem(
            "CannotKeepRunning",
            "spec.serving.keepRunning is true and spec.generation.review is required: nothing is served while a person "
            "looks at the samples: write false, or leave the review out",
        )
    ]


def length_problems(resolved: ResolvedSpec) -> list[Problem]:
    """Answers that leave no room for a question: every sample would be too long."""
    longest, context = resolved.answer_tokens, resolved.context_tokens
    if longest < context:
        return []
    return [
        Problem(
            "AnswersTooLong",
            f"the longest answer, by spec.diagnosis.maxTokens and spec.training.maxCompletionLength, is {longest} "
            f"tokens, and all of a prompt and its answer has {context} (spec.serving.maxModelLen, with rolloutEngine "
            "vllm also maxPromptLength + maxCompletionLength): raise the one or lower the other",
        )
    ]


def original_problems(resolved: ResolvedSpec) -> list[Problem]:
    """Edits of nothing: a program edits what another source draws or reads, an endpoint what a selector looks for."""
    sources = resolved.generation.sources
    read = [s for s in sources if s.kind is SourceKind.RENDER or (s.kind is SourceKind.POOL and s.program is not None)]
    looked_for = [s for s in sources if s.kind in (SourceKind.RENDER, SourceKind.SEARCH)]
    looked_for += [s for s in sources if s.kind is SourceKind.POOL and s.program is None]
    found = []
    for number, source in enumerate(sources):
        usable, kinds = read, "render, or pool with a program"
        if source.program is None:
            usable, kinds = looked_for, "render, search, or pool without a program"
        if source.kind is SourceKind.EDIT and not usable:
            message = f"spec.generation.sources[{number}] edits pictures, but no other source has any for it"
            found.append(Problem("NothingToEdit", f"{message}: add one of kind {kinds}"))
    return found


def resolve(spec: Spec, previous: Previous | None) -> Resolved:
    """What the iteration runs with. Call it only without a `reference_problem`.

    Raises ValueError when no probe is given anywhere.
    """
    if spec.model.iteration_ref is None:
        if spec.model.uri is None:
            raise ValueError("spec.model needs exactly one of uri and iterationRef")
        return Resolved(round=0, model_uri=spec.model.uri, spec=spec.resolve())
    before = None if previous is None else previous.status
    if before is None or before.model is None or before.resolved is None:
        raise ValueError(
            f"spec.model.iterationRef.name is {spec.model.iteration_ref.name}: it cannot be continued from"
        )
    # its evaluation described the accepted candidate; after a rejection the base still stands, with its diagnosis
    describes = Stage.EVALUATION if before.model.accepted else Stage.DIAGNOSIS
    return Resolved(
        round=before.resolved.round + 1,
        model_uri=before.model.uri,
        reuse_diagnosis=f"{before.artifacts}/{describes}" if before.artifacts else None,
        previous=before.artifacts,
        spec=spec.resolve(before.resolved.spec),
    )


def problems(spec: Spec, previous: Previous | None, platform: Platform) -> list[Problem]:
    """What the spec alone, the referenced iteration and the platform say against starting."""
    reference = reference_problem(spec, previous)
    if reference is not None:
        return [reference]
    try:
        resolved = resolve(spec, previous)
    except ValueError as error:
        return [Problem("InvalidSpec", str(error))]
    return [
        *pool_problems(resolved.spec, platform),
        *lmms_eval_problems(resolved.spec, platform),
        *endpoint_problems(resolved.spec),
        *trainer_problems(resolved.spec),
        *keeping_problems(resolved.spec),
        *length_problems(resolved.spec),
        *original_problems(resolved.spec),
    ]
