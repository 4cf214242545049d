"""Waiting for a person between a generation's draft and the generation itself. Pure.

The draft is looked at without any model being served and without a deadline. What goes on is said by an annotation, or
by the marked table beside the draft; both are read again and again, so that nothing of it needs a memory.
"""

from dpe_api.names import ANNOTATION_REVIEW, DRAFT, PLURAL, REVIEW, REVIEWED, Stage
from dpe_api.status import Phase, ReviewStatus, StageState
from dpe_operator.conditions import shorten
from dpe_operator.summaries import InvalidManifest, absorb
from dpe_operator.turn import Turn

ACCEPTED, REJECTED = "accepted", "rejected"


def look(turn: Turn, current: Stage | None) -> None:
    """Begin to wait when there is a draft; forget it when the generation is published."""
    if current is not Stage.GENERATION:
        if turn.status.review is not None:
            turn.status = turn.status.model_copy(update={"review": None})
        return
    entry, draft = turn.entry(Stage.GENERATION), turn.seen.draft
    if draft is None or turn.status.review is not None or entry.state is StageState.FAILED:
        return
    try:
        _, line = absorb(turn.status, Stage.GENERATION, draft)
    except InvalidManifest as error:
        turn.update(Stage.GENERATION, state=StageState.FAILED, message=f"InvalidManifest: {error}")
        return
    # whatever its pod does now: the attempt has done its work
    newest = max((job.attempt for job in turn.seen.jobs_of(Stage.GENERATION)), default=0)
    turn.update(Stage.GENERATION, state=StageState.PENDING, attempt=max(entry.attempt, newest), next_attempt_time=None)
    review = ReviewStatus(draft=f"{turn.status.artifacts}/{Stage.GENERATION}/{DRAFT}", samples=shorten(line))
    turn.status = turn.status.model_copy(update={"review": review})
    turn.note("AwaitingReview", how_to_go_on(turn, review), "draft")


def how_to_go_on(turn: Turn, review: ReviewStatus) -> str:
    """What a person is to do, with the very command."""
    own = turn.seen.iteration
    command = f"kubectl -n {own.namespace} annotate --overwrite {PLURAL} {own.name} {ANNOTATION_REVIEW}="
    return (
        f"{review.samples}. Look at gallery.html and {REVIEW} in {review.draft}, then: {command}{ACCEPTED} (or "
        f"{REJECTED}); to drop samples, first mark every row's verdict keep or drop and upload it there as {REVIEWED}"
    )


def is_accepted(turn: Turn) -> bool:
    """Whether the generation is to be made of the draft now; else it says what it waits for, or fails the stage."""
    review, entry = turn.status.review, turn.entry(Stage.GENERATION)
    assert review is not None, "asked of drafts only"
    said, marked = turn.seen.iteration.review, turn.seen.reviewed
    if said == REJECTED:
        message = f"ReviewRejected: the iteration is annotated {ANNOTATION_REVIEW}={REJECTED}"
        turn.update(Stage.GENERATION, state=StageState.FAILED, message=message)
        return False
    if entry.state in (StageState.RUNNING, StageState.BACKOFF):
        return True
    marks = shorten(f"{said}/{marked or ''}", 256)
    if (said == ACCEPTED or (not said and marked is not None)) and marks != review.refused:
        accepted = review.model_copy(update={"applied": marks, "problem": None})
        turn.status = turn.status.model_copy(update={"review": accepted})
        return True
    message = how_to_go_on(turn, review)
    if review.problem is not None and marks == review.refused:
        message = f"{review.problem}; upload {REVIEWED} again: it is looked at as soon as it has changed"
    elif said not in ("", ACCEPTED):
        message = f"annotation {ANNOTATION_REVIEW} is {said!r}: write {ACCEPTED} or {REJECTED}"
    turn.update(Stage.GENERATION, message=message)
    turn.status = turn.status.model_copy(update={"phase": Phase.AWAITING_REVIEW})
    return False
