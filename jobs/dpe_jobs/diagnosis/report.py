"""From answered items to `report.json`, and the fingerprint by which a later iteration knows that it may reuse them."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from dpe_api.artifacts import CategoryReport, DiagnosisReport, InputRef, SetReport
from dpe_api.diagnosis_spec import Diagnosis, Probe
from dpe_api.endpoints import Endpoint
from dpe_api.launch import ServedModel
from dpe_jobs.diagnosis import intervals
from dpe_jobs.diagnosis.items import Items
from dpe_jobs.diagnosis.sample import PAIRED, QuestionSet
from dpe_jobs.prompts import prompt

REPORT = "report.json"
SERVED_SINCE = 2
"""Counts the ways in which models were served and asked: raised when the same model would answer otherwise than before.

2: vLLM's own sampling defaults, not those of the model's generation_config.json.
"""


def served_as(served: ServedModel) -> list[object]:
    """What decides a server's answers beside its weights: anything in vLLM's arguments may, from a chat template on."""
    return [served.max_model_len, *served.extra_args, SERVED_SINCE]


def fingerprint(
    model: InputRef,
    served: ServedModel,
    sets: Sequence[QuestionSet],
    probe: Probe,
    settings: Diagnosis,
    endpoints: Sequence[Endpoint] = (),
) -> str:
    """Hash of everything that decides the answers: weights, serving, question files, the rows asked, sampling, judge.

    Graders are no part of it: whoever takes answers over grades them anew.

    An evaluation's PAIRED rows are no part of it, so that the next diagnosis finds its own fingerprint. Confidence,
    concurrency and the error limit decide nothing about an answer, nor does what is made of wrong ones. Neither do seed
    and round beyond the rows: another seed draws other rollouts from the same distribution.
    """
    models = {e.name: e.model for e in endpoints}
    assigned, judge = probe.categorise, settings.judge
    parts = {
        "model": model.sha256,
        "served": served_as(served),
        "sets": [[s.name, s.source.sha256, s.rollouts, sorted(s.ids)] for s in sets if s.name != PAIRED],
        "sample": [probe.sample_size, probe.adaptive_share],
        "categories": assigned and [models.get(assigned.endpoint), assigned.taxonomy, prompt("categorise").sha256],
        "judge": judge and [models.get(judge.endpoint), prompt("judge").sha256],
        "temperature": settings.temperature,
        "maxTokens": settings.max_tokens,
        "maxPixels": settings.max_pixels,
        "shuffleChoices": settings.shuffle_choices,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _category(items: Items, mask: np.ndarray, name: str, confidence: float) -> CategoryReport:
    mine = mask & (items.category == name)
    answered = mine & items.answered
    n, correct = int(answered.sum()), int(items.correct[answered].sum())
    rates, rollouts = items.pass_rate[answered], int(items.rollouts[answered].sum())
    sampled = rates[~np.isnan(rates)]
    return CategoryReport(
        name=name,
        n=n,
        errors=int(mine.sum()) - n,
        correct=correct,
        accuracy=intervals.accuracy(correct, n, confidence),
        rollouts=rollouts,
        pass_rate=intervals.pass_rate(sampled, rollouts, confidence) if len(sampled) else None,
    )


def describe_set(items: Items, questions: QuestionSet, confidence: float) -> SetReport:
    """Accuracy and pass rate of each category; the macro accuracy is over the categories with an answer."""
    mask = items.set == questions.name
    categories = [_category(items, mask, name, confidence) for name in questions.categories]
    return SetReport(
        name=questions.name,
        uri=questions.source.uri,
        n=sum(c.n for c in categories),
        errors=sum(c.errors for c in categories),
        macro=intervals.macro([c.accuracy for c in categories if c.n]),
        categories=categories,
        excluded=questions.excluded,
        uncategorised=questions.uncategorised,
    )


def describe(
    items: Items,
    sets: Sequence[QuestionSet],
    model: InputRef,
    served: ServedModel,
    probe: Probe,
    settings: Diagnosis,
    endpoints: Sequence[Endpoint] = (),
) -> DiagnosisReport:
    """The report of a diagnosis or a re-diagnosis."""
    return DiagnosisReport(
        model_uri=model.uri,
        model_sha256=model.sha256,
        fingerprint=fingerprint(model, served, sets, probe, settings, endpoints),
        sets=[describe_set(items, s, settings.confidence) for s in sets],
        confidence=settings.confidence,
    )
