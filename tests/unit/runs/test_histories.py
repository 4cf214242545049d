"""Random histories: whatever happens to iterations, status and operator, the promises of a run's `decide` hold."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.unit.runs import given

from dpe_api.names import LABEL_RETRY, LABEL_ROUND
from dpe_api.run_status import RunPhase, RunStatus
from dpe_api.spec import Spec
from dpe_api.status import Phase
from dpe_operator.runs.decide import decide
from dpe_operator.runs.table import JUDGED
from dpe_operator.runs.world import RoundSeen, RunPlan, RunSeen
from dpe_operator.summaries import size

ROUNDS = 4
LIVE = (Phase.PENDING, Phase.DIAGNOSING, Phase.TRAINING, Phase.SUSPENDED)


class World:
    """An API server with one run and its iterations, and an iteration operator that does as told."""

    def __init__(self, spec: given.RunSpec) -> None:
        self.spec, self.status, self.now = spec, RunStatus(), given.T0
        self.iterations: dict[str, RoundSeen] = {}
        self.foreign: set[str] = set()
        self.uids = 0
        self.removed = False

    def plan(self, status: RunStatus | None = None) -> RunPlan:
        seen = RunSeen(given.RUN, tuple(self.iterations.values()), frozenset(self.foreign))
        return decide(self.spec, status or self.status, seen, self.now, given.RESYNC)

    def apply(self, plan: RunPlan, die_after: int = 99) -> None:
        """In the order of the reconcile loop; the operator dies after some steps."""
        steps = [self._create, self._suspend, self._write, self._delete]
        for step in steps[:die_after]:
            step(plan)
        self.removed |= plan.remove_run

    def _create(self, plan: RunPlan) -> None:
        if plan.create is None:
            return
        metadata = plan.create["metadata"]
        name = metadata["name"]
        assert len(name) <= 40
        if name in self.iterations:  # an earlier try succeeded
            return
        spec = Spec.model_validate(plan.create["spec"])
        reference = None if spec.model.iteration_ref is None else spec.model.iteration_ref.name
        if reference is not None:
            assert self.iterations[reference].status.phase in JUDGED
        self.uids += 1
        number, retry = (int(metadata["labels"][label]) for label in (LABEL_ROUND, LABEL_RETRY))
        self.iterations[name] = RoundSeen(name, f"uid-{self.uids}", number, retry, reference=reference)

    def _suspend(self, plan: RunPlan) -> None:
        if plan.suspend is not None and plan.suspend[0].name in self.iterations:
            name, value = plan.suspend[0].name, plan.suspend[1]
            found = self.iterations[name]
            self.iterations[name] = replace(found, suspended=value, suspended_by_run=value)

    def _write(self, plan: RunPlan) -> None:
        self.status = plan.status or self.status

    def _delete(self, plan: RunPlan) -> None:
        if plan.delete is not None:
            self.iterations.pop(plan.delete.name, None)

    def live(self) -> list[RoundSeen]:
        return [i for i in self.iterations.values() if i.status.phase in LIVE]

    def work(self, phase: Phase) -> None:
        """The live iteration gets on, unless it is suspended or waits for one that is gone."""
        for it in self.live():
            if it.suspended:
                self.iterations[it.name] = replace(it, status=given.status(Phase.SUSPENDED))
            elif it.status.resolved is not None or it.reference is None or it.reference in self.iterations:
                self.iterations[it.name] = replace(it, status=given.status(phase, name=it.name, number=it.round - 1))


class History(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.judged: dict[tuple[int, int], Phase] = {}
        self.highest = 0

    @initialize(on_rejected=st.sampled_from(["stop", "retryWithAnotherSeed", "continueFromAccepted"]))
    def kind(self, on_rejected: str) -> None:
        self.world = World(given.spec(maxIterations=ROUNDS, onRejected=on_rejected))

    @rule()
    def operator_looks(self) -> None:
        self.world.apply(self.world.plan())

    @rule(steps=st.integers(0, 4))
    def operator_dies_in_the_middle(self, steps: int) -> None:
        self.world.apply(self.world.plan(), die_after=steps)

    @rule()
    def a_plan_applied_twice_is_applied_once(self) -> None:
        plan = self.world.plan()
        self.world.apply(plan)
        before = dict(self.world.iterations), self.world.status
        self.world.apply(replace(plan, status=None))
        assert before == (self.world.iterations, self.world.status)

    @rule()
    def looking_again_settles(self) -> None:
        for _ in range(5):
            plan = self.world.plan()
            if plan.create is None and plan.suspend is None and plan.delete is None and plan.status is None:
                return
            self.world.apply(plan)
        raise AssertionError(f"the operator does not come to rest: {plan}")

    @rule(phase=st.sampled_from([Phase.DIAGNOSING, Phase.TRAINING, Phase.SUCCEEDED, Phase.SUCCEEDED, Phase.REJECTED]))
    def the_iteration_gets_on(self, phase: Phase) -> None:
        self.world.work(phase)

    @rule()
    def the_iteration_fails(self) -> None:
        self.world.work(Phase.FAILED)

    @rule(pick=st.integers(0, 9))
    def somebody_deletes_an_iteration(self, pick: int) -> None:
        if names := sorted(self.world.iterations):
            del self.world.iterations[names[pick % len(names)]]

    @rule()
    def somebody_wipes_the_status(self) -> None:
        if {r.round for r in self.world.status.rounds} <= {i.round for i in self.world.iterations.values()}:
            self.world.status = RunStatus()  # what is not there any more nobody can tell
            self.judged.clear()

    @rule(suspend=st.booleans())
    def person_suspends_or_resumes(self, suspend: bool) -> None:
        self.world.spec = self.world.spec.model_copy(update={"suspend": suspend})

    @rule(name=st.sampled_from(["shapes-1", "shapes-2"]))
    def somebody_takes_or_gives_back_a_name(self, name: str) -> None:
        if name not in self.world.iterations:
            self.world.foreign ^= {name}

    # the promises

    @invariant()
    def at_most_one_round_runs(self) -> None:
        if hasattr(self, "world"):
            assert len(self.world.live()) <= 1

    @invariant()
    def no_more_rounds_than_wanted(self) -> None:
        if hasattr(self, "world"):
            assert all(i.round <= ROUNDS for i in self.world.iterations.values())

    @invariant()
    def a_judged_round_keeps_its_verdict(self) -> None:
        if not hasattr(self, "world"):
            return
        now = {(r.round, r.retry): r.phase for r in self.world.status.rounds}
        for entry, phase in self.judged.items():
            newer = any(number == entry[0] and retry > entry[1] for number, retry in now)
            assert newer or now[entry] is phase
        self.judged |= {entry: phase for entry, phase in now.items() if phase in JUDGED}

    @invariant()
    def the_status_stays_small(self) -> None:
        if hasattr(self, "world"):
            assert size(self.world.status) < 32 * 1024

    def teardown(self) -> None:
        """Left alone in a world that behaves, every run ends."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.spec = world.spec.model_copy(update={"suspend": False})
        world.foreign.clear()
        for _ in range(60):
            world.apply(world.plan())
            for failed in [i for i in world.iterations.values() if i.status.phase is Phase.FAILED]:
                if world.status.phase is RunPhase.FAILED:
                    del world.iterations[failed.name]  # as the status says
            world.work(Phase.SUCCEEDED)
            world.now += timedelta(seconds=30)
        assert world.status.phase.is_complete, world.status


TestHistories = History.TestCase
TestHistories.settings = settings(
    max_examples=200, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
