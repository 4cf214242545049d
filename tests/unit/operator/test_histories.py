"""Random histories: whatever happens to pods, Jobs, store and operator, the promises of `decide` hold."""

import contextlib

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.unit.operator import given
from tests.unit.operator.sim import Crash, World

from dpe_api.names import Exit, Stage
from dpe_api.status import Phase, StageState, Status

LIMIT = 2
CODES = st.sampled_from([*Exit, 1, 137])


class History(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World(given.spec(retry={"maxAttempts": LIMIT}), given.platform())
        self.final: Phase | None = None
        self.older: list[tuple[Status, int]] = []

    @initialize(
        accepted=st.booleans(), how=st.sampled_from(["plain", "reviewed", "kept", "kept"]), replicas=st.integers(1, 2)
    )
    def verdict(self, accepted: bool, how: str, replicas: int) -> None:
        self.world.accepted = accepted
        generation = {"review": "required"} if how == "reviewed" else {}
        serving = {"keepRunning": how == "kept", "replicas": replicas}
        self.world.spec = given.spec(retry={"maxAttempts": LIMIT}, generation=generation, serving=serving)

    @property
    def keeps(self) -> bool:
        return self.world.spec.serving is not None and self.world.spec.serving.keep_running

    # the operator

    @rule()
    def operator_looks(self) -> None:
        self.older.append((self.world.status, self.world.version))
        self.world.turn()

    @rule(steps=st.integers(0, 6))
    def operator_dies_in_the_middle(self, steps: int) -> None:
        with contextlib.suppress(Crash):
            self.world.apply(self.world.plan(), die_after=steps)

    @rule(back=st.integers(1, 4))
    def operator_with_a_stale_status_is_refused(self, back: int) -> None:
        if self.older:
            status, version = self.older[-min(back, len(self.older))]
            with contextlib.suppress(Crash):
                self.world.apply(self.world.plan(status), version)

    @rule()
    def a_plan_applied_twice_is_applied_once(self) -> None:
        plan, version = self.world.plan(), self.world.version
        self.world.apply(plan)
        before = (self.world.status, dict(self.world.jobs), dict(self.world.pods), dict(self.world.notes))
        try:
            self.world.apply(plan, version)
        except Crash:
            assert plan.status is not None
        assert before == (self.world.status, self.world.jobs, self.world.pods, self.world.notes)

    @rule()
    def looking_again_settles(self) -> None:
        for _ in range(4):
            plan = self.world.turn()
            if not plan.create and not plan.delete and plan.status is None:
                return
        raise AssertionError(f"the operator does not come to rest: {plan}")

    # the world

    @rule(moves=st.integers(1, 20), work=st.sampled_from([True, True, False]), seconds=st.sampled_from([1, 6, 12]))
    def life_goes_on(self, moves: int, work: bool, seconds: float) -> None:
        for _ in range(moves):
            self.world.turn()
            self.world.control()
            self.world.run_pods()
            if work:
                self.world.finish_work()
            self.at_most_one_live_attempt_per_stage()
            self.training_and_serving_never_hold_gpus_together()
            self.base_and_candidate_are_never_served_together()
            self.terminal_phases_are_final()
            self.world.pass_time(seconds)

    @rule(seconds=st.sampled_from([0.5, 5, 40, 90, 700, 1300]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(control=st.booleans(), run=st.booleans())
    def cluster_works_without_the_operator(self, control: bool, run: bool) -> None:
        if control:
            self.world.control()
        if run:
            self.world.run_pods()

    @rule(seconds=st.sampled_from([0.5, 2, 6]))
    def person_suspends_and_thinks_better_of_it(self, seconds: float) -> None:
        for suspend in (True, False):
            self.world.spec = self.world.spec.model_copy(update={"suspend": suspend})
            self.world.turn()
            self.world.pass_time(seconds)
        self.life_goes_on(moves=3, work=False, seconds=1)

    @rule(times=st.integers(1, LIMIT + 1))
    def a_stage_keeps_crashing(self, times: int) -> None:
        for _ in range(times):
            self.life_goes_on(moves=8, work=False, seconds=12)
            for pod in list(self.world.pods.values()):
                if not pod.stage.is_serving:
                    self.world.end_pod(pod.uid, 75)
        self.life_goes_on(moves=3, work=False, seconds=12)
        self.charged_failures_stay_within_the_limit()

    @rule(pick=st.integers(0, 5), code=CODES, report=st.booleans())
    def pod_ends(self, pick: int, code: int, report: bool) -> None:
        if running := [p.uid for p in self.world.pods.values() if p.phase == "Running"]:
            self.world.end_pod(running[pick % len(running)], int(code), report=report)

    @rule(pick=st.integers(0, 5), how=st.sampled_from(["evicted", "vanished", "deleted", "lost"]))
    def pod_is_taken_away(self, pick: int, how: str) -> None:
        if not (pods := list(self.world.pods)):
            return
        uid = pods[pick % len(pods)]
        if how == "evicted":
            self.world.change(uid, disrupted="EvictionByEvictionAPI")
        if how == "vanished":
            del self.world.pods[uid]
        elif how == "lost":
            self.world.lose(uid)
        else:
            self.world.stop_pod(uid)

    @rule(pick=st.integers(0, 5))
    def job_is_deleted_by_somebody(self, pick: int) -> None:
        if jobs := list(self.world.jobs.values()):
            job = jobs[pick % len(jobs)]
            self.world._delete(job.name, job.uid)

    @rule(pick=st.integers(0, 5), closes=st.booleans())
    def queue_takes_a_job_back(self, pick: int, closes: bool) -> None:
        if jobs := list(self.world.jobs):
            self.world.evict_job(jobs[pick % len(jobs)])
        self.world.queue_is_open = not closes

    @rule(dies=st.booleans())
    def a_running_stage_publishes(self, dies: bool) -> None:
        batch = [p for p in self.world.pods.values() if p.phase == "Running" and not p.stage.is_serving]
        if batch and not self.world.store_is_away:
            self.world.publish(batch[0].stage)
            if dies:
                self.world.end_pod(batch[0].uid, 1)

    @precondition(lambda self: self.keeps)
    @rule(takes=st.booleans())
    def kept_servers_hang_or_recover_while_the_candidate_is_trained(self, takes: bool) -> None:
        self.world.takes_weights = takes
        self.life_goes_on(moves=12, work=True, seconds=6)

    @rule()
    def store_goes_or_comes(self) -> None:
        self.world.set_store(away=not self.world.store_is_away)

    @rule(word=st.sampled_from(["", "accepted", "rejected", "yes"]), marks=st.sampled_from([None, "a", "b"]))
    def person_reviews(self, word: str, marks: str | None) -> None:
        self.world.say(word, marks)

    @rule()
    def person_suspends_or_resumes(self) -> None:
        self.world.spec = self.world.spec.model_copy(update={"suspend": not self.world.spec.suspend})

    # the promises

    @invariant()
    def at_most_one_live_attempt_per_stage(self) -> None:
        for stage in Stage:
            live = [j.name for j in self.world.jobs.values() if j.stage is stage and j.is_live]
            assert len(live) <= 1, live
            running = {
                p.attempt
                for p in self.world.pods.values()
                if p.stage is stage and not p.is_over and not p.is_stuck(self.world.now)
            }
            assert len(running) <= 1, running

    @invariant()
    def terminal_phases_are_final(self) -> None:
        if self.final is not None:
            assert self.world.status.phase is self.final
        if self.world.status.phase.is_final:
            self.final = self.world.status.phase

    @invariant()
    def charged_failures_stay_within_the_limit(self) -> None:
        assert all(s.failures <= LIMIT for s in self.world.status.stages)

    @invariant()
    def training_and_serving_never_hold_gpus_together(self) -> None:
        running = {p.stage for p in self.world.pods.values() if not p.is_over and not p.is_stuck(self.world.now)}
        assert self.keeps or not {Stage.TRAINING, Stage.SERVE_BASE} <= running
        assert not {Stage.TRAINING, Stage.SERVE_CANDIDATE} <= running

    @invariant()
    def base_and_candidate_are_never_served_together(self) -> None:
        running = {p.stage for p in self.world.pods.values() if not p.is_over and not p.is_stuck(self.world.now)}
        assert not {Stage.SERVE_BASE, Stage.SERVE_CANDIDATE} <= running

    @invariant()
    def nobody_is_answered_by_the_wrong_model(self) -> None:
        right = {Stage.DIAGNOSIS: "base", Stage.GENERATION: "base", Stage.EVALUATION: "candidate"}
        assert all(right[stage] == whose for stage, whose in self.world.answered), self.world.answered

    @invariant()
    def who_waits_for_a_person_runs_nothing(self) -> None:
        if self.world.status.phase is Phase.AWAITING_REVIEW:
            assert all(s.state is not StageState.RUNNING for s in self.world.status.stages)
            assert self.world.draft is not None

    @invariant()
    def nobody_trains_before_the_review_is_over(self) -> None:
        if self.world.status.review is not None:
            assert not [j for j in self.world.jobs.values() if j.stage is Stage.TRAINING]

    @invariant()
    def a_done_stage_has_a_manifest(self) -> None:
        for entry in self.world.status.stages:
            if entry.state is StageState.DONE and not entry.name.is_serving:
                assert entry.name in self.world.manifests

    def teardown(self) -> None:
        self.world.behave()
        assert self.world.status.phase.is_final, self.world.status
        assert not any(j.is_live for j in self.world.jobs.values())


TestHistories = History.TestCase
TestHistories.settings = settings(
    max_examples=250, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
