"""Who may run, as tables, as properties, and as a history of many iterations under one queue."""

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st
from tests.unit.operator import given
from tests.unit.operator.sim import World

from dpe_api.names import API_VERSION
from dpe_api.status import Phase, Status
from dpe_operator.conditions import condition
from dpe_operator.decide import decide
from dpe_operator.queueing import Entry, Queue, Standing, called, entry_of, place
from dpe_operator.world import Iteration, Observed, Problem

BOTH = frozenset({"inference", "training"})
RUNS, WAITS, UNSEEN = Standing.RUNS, Standing.WAITS, Standing.UNSEEN


def limited(namespace: int | None = None, **pools: int):
    """A platform with these limits."""
    known = given.platform().model_dump(by_alias=True)["pools"]
    for name, maximum in pools.items():
        known[name]["maxIterations"] = maximum
    return given.platform(limits={"iterationsPerNamespace": namespace}, pools=known)


def entry(name: str, standing=WAITS, *, priority=0, age_s=0.0, namespace="lab", pools=BOTH) -> Entry:
    return Entry(namespace, name, priority, given.at(-age_s), frozenset(pools), standing)


@pytest.mark.parametrize(
    ("others", "position", "why"),
    [
        ([], 1, ""),
        ([entry("a", RUNS)], 1, ""),
        ([entry("a", RUNS), entry("b", RUNS)], 1, "namespace lab runs 2 of at most 2 iterations"),
        ([entry("a", RUNS, namespace="other"), entry("b", RUNS, namespace="other")], 1, ""),
        ([entry("a", RUNS), entry("b", age_s=1)], 2, "namespace lab runs 1 of at most 2 iterations"),
        ([entry("a", RUNS), entry("b", age_s=-1)], 1, ""),
        ([entry("a", RUNS), entry("b", age_s=-1, priority=1)], 2, "namespace lab runs 1 of at most 2 iterations"),
        ([entry("a", RUNS), entry("b", UNSEEN, age_s=1)], 2, "namespace lab runs 1 of at most 2 iterations"),
        (
            [entry(n, RUNS, namespace=n) for n in ("u", "v", "w")],
            1,
            "pool training runs 3 of at most 3 iterations",
        ),
        (
            [entry("a", RUNS), entry("b", RUNS), entry("c", RUNS, namespace="other")],
            1,
            "namespace lab runs 2 of at most 2 iterations; pool training runs 3 of at most 3 iterations",
        ),
        ([entry(n, RUNS, namespace=n, pools={"inference"}) for n in ("u", "v", "w")], 1, ""),
    ],
)
def test_place(others, position, why):
    found = place(entry("me"), others, limited(namespace=2, training=3))
    assert (found.position, found.why) == (position, why)


def test_who_waits_for_two_pools_is_not_overtaken_by_those_who_want_one():
    platform = limited(inference=1, training=1)
    others = [entry("trains", RUNS, pools={"training"}), entry("wants-both", age_s=5)]
    assert not place(entry("me", pools={"inference"}), others, platform).is_free


def test_a_namespace_at_its_own_limit_keeps_no_place_of_a_shared_pool_from_others():
    platform = limited(namespace=1, training=2)
    full = [entry("runs", RUNS, namespace="a"), *(entry(f"a{n}", age_s=9, namespace="a") for n in range(10))]
    me = entry("me", namespace="b")
    assert (place(me, full, platform).position, place(me, full, platform).is_free) == (1, True)
    assert called([*full, me], platform) == [me]
    last = place(entry("last", namespace="a"), full, platform)
    assert (last.position, last.why) == (11, "namespace a runs 1 of at most 1 iterations")
    # a namespace with room for one more keeps a place for that one alone
    roomy = [entry(f"a{n}", age_s=9, namespace="a") for n in range(10)]
    assert (place(me, roomy, platform).position, place(me, roomy, platform).is_free) == (2, True)
    assert called([*roomy, me], platform) == [roomy[0], me]


ENTRIES = st.lists(
    st.builds(
        entry,
        st.sampled_from([f"i{n}" for n in range(12)]),
        st.sampled_from([RUNS, WAITS, WAITS, UNSEEN]),
        priority=st.integers(-1, 1),
        age_s=st.integers(0, 3),
        namespace=st.sampled_from(["a", "b"]),
        pools=st.sampled_from([BOTH, {"inference"}, {"training"}]),
    ),
    unique_by=lambda e: (e.namespace, e.name),
    max_size=12,
)
LIMITS = st.builds(limited, st.none() | st.integers(1, 3), inference=st.integers(1, 3), training=st.integers(1, 3))


@examples(entries=ENTRIES, platform=LIMITS)
def test_those_who_are_called_are_those_whose_place_is_free(entries, platform):
    free = [e for e in entries if e.standing is WAITS and place(e, entries, platform).is_free]
    assert called(entries, platform) == sorted(free, key=lambda e: e.order)


@examples(entries=ENTRIES, platform=LIMITS)
def test_letting_in_everybody_who_is_called_keeps_every_limit_that_was_kept(entries, platform):
    def over(some):
        counts = {}
        for e in some:
            if e.standing is RUNS:
                for key in (("namespace", e.namespace), *(("pool", p) for p in e.pools)):
                    counts[key] = counts.get(key, 0) + 1
        maxima = {("pool", n): p.max_iterations for n, p in platform.pools.items()}
        maxima |= {("namespace", n): platform.limits.iterations_per_namespace for n in ("a", "b")}
        return {key for key, n in counts.items() if maxima[key] is not None and n > maxima[key]}

    let_in = [replace(e, standing=RUNS) if e in called(entries, platform) else e for e in entries]
    assert over(let_in) <= over(entries)


@examples(entries=ENTRIES, platform=LIMITS)
def test_nobody_is_called_before_somebody_better_who_wants_the_same(entries, platform):
    waiting = [e for e in entries if e.standing is not RUNS]
    for one in called(entries, platform):
        rivals = [e for e in waiting if e.order < one.order and e.pools == one.pools and e.namespace == one.namespace]
        assert all(e in called(entries, platform) for e in rivals if e.standing is WAITS)


def body(name: str, status: dict | None = None, **spec):
    meta = {"namespace": "lab", "name": name, "uid": f"uid-{name}", "creationTimestamp": "2026-01-01T12:00:00Z"}
    return {"apiVersion": API_VERSION, "metadata": meta, "spec": {"model": {}, **spec}, "status": status}


@pytest.mark.parametrize(
    ("status", "standing"),
    [
        (None, UNSEEN),
        ({"phase": "Pending", "conditions": []}, Standing.OUT),
        ({"phase": "Pending", "queue": {"position": 1, "pools": ["training"]}}, WAITS),
        ({"phase": "Training", "resolved": {"spec": {}}}, RUNS),
        ({"phase": "Suspended", "resolved": {"spec": {}}}, Standing.OUT),
        ({"phase": "Suspended", "resolved": {"spec": {}}, "queue": {"position": 1}}, WAITS),
        ({"phase": "Suspended"}, Standing.OUT),
        ({"phase": "Failed", "resolved": {"spec": {}}}, Standing.OUT),
    ],
)
def test_standing_follows_from_what_the_api_server_holds(status, standing):
    assert entry_of(body("a", status)).standing is standing


def test_the_queue_says_when_somebody_else_may_run_now():
    queue = Queue(limited(namespace=1))
    running = {"phase": "Training", "resolved": {"spec": {"serving": {"pool": "inference"}}}}
    assert not queue.put(body("a", running))
    assert not queue.put(body("b", {"queue": {"position": 1, "pools": ["inference"]}}))
    assert queue.called() == []
    assert queue.put(body("a", {**running, "phase": "Succeeded"}))
    assert [e.name for e in queue.called()] == ["b"]
    assert not queue.put({**body("c"), "metadata": {**body("c")["metadata"], "deletionTimestamp": "x"}})
    assert not queue.knows("lab", "c")


def test_without_limits_nothing_is_kept():
    queue = Queue(given.platform())
    queue.put(body("a"))
    assert queue.entries == ()


def seen(*others: Entry, **more) -> Observed:
    return Observed(replace(given.ITERATION, created=given.T0), others=others, **more)


def test_one_that_waits_says_so_and_creates_nothing_until_its_turn():
    platform, spec = limited(namespace=1), given.spec()
    first = decide(spec, Status(), seen(entry("a", RUNS), entry("b", age_s=9)), platform, given.T0)
    assert first.status is not None
    assert not first.create
    assert first.status.queue is not None
    assert (first.status.queue.position, first.status.queue.pools) == (2, ["inference", "training"])
    accepted = condition(first.status.conditions, "Accepted")
    assert accepted is not None
    assert (accepted.status, accepted.reason) == ("False", "Queued")
    assert accepted.message == "position 2: namespace lab runs 1 of at most 1 iterations"
    assert [n.reason for n in first.notes] == ["Queued"]
    again = decide(spec, first.status, seen(entry("a", RUNS)), platform, given.at(30))
    assert again.status is not None
    assert again.status.queue is not None
    assert (again.status.queue.position, again.notes) == (1, ())
    turn = decide(spec, again.status, seen(), platform, given.at(60))
    assert turn.status is not None
    assert turn.status.resolved is not None
    assert turn.status.queue is None


def test_a_problem_takes_it_out_of_the_queue():
    platform, spec = limited(namespace=1), given.spec()
    queued = decide(spec, Status(), seen(entry("a", RUNS)), platform, given.T0).status
    assert queued is not None
    problem = Problem("ProbeNotFound", "gone")
    out = decide(spec, queued, seen(entry("a", RUNS), problems=(problem,)), platform, given.at(9)).status
    assert out is not None
    assert out.queue is None


def test_an_outage_of_the_store_takes_nobody_out_of_the_queue():
    platform, spec = limited(namespace=1), given.spec()
    queued = decide(spec, Status(), seen(entry("a", RUNS)), platform, given.T0).status
    assert queued is not None
    away = decide(spec, queued, seen(store_error="it is away"), platform, given.at(9)).status
    assert away is not None
    accepted = condition(away.conditions, "Accepted")
    assert accepted is not None
    assert (accepted.reason, away.queue) == ("StoreUnavailable", queued.queue)
    assert entry_of(body("me", away.wire())).standing is WAITS
    back = decide(spec, away, seen(), platform, given.at(60)).status
    assert back is not None
    assert (back.queue, back.resolved is None) == (None, False)


def test_a_problem_beside_an_outage_of_the_store_does():
    platform, spec = limited(namespace=1), given.spec()
    queued = decide(spec, Status(), seen(entry("a", RUNS)), platform, given.T0).status
    assert queued is not None
    broken = given.spec(serving={"pool": "no-such-pool"})
    out = decide(broken, queued, seen(store_error="it is away"), platform, given.at(9)).status
    assert out is not None
    assert out.queue is None


def test_a_suspended_iteration_queues_again_when_it_is_resumed():
    it = World(given.spec(), limited(namespace=1))
    for _ in range(6):
        it.turn()
        it.control()
        it.run_pods()
    it.spec = it.spec.model_copy(update={"suspend": True})
    it.turn()
    assert it.status.phase is Phase.SUSPENDED
    it.spec = it.spec.model_copy(update={"suspend": False})
    it.others = (entry("a", RUNS),)
    for _ in range(5):
        it.control()
        it.pass_time(10)
        assert not it.turn().create
    assert it.status.phase is Phase.SUSPENDED
    assert it.status.queue is not None
    suspended = condition(it.status.conditions, "Suspended")
    assert suspended is not None
    assert (suspended.status, suspended.reason) == ("True", "Queued")
    it.others = ()
    it.behave()
    assert it.status.phase is Phase.SUCCEEDED
    assert it.status.queue is None


@dataclass
class Crowd:
    """Many iterations under one queue, each looked at in an order that hypothesis draws."""

    worlds: dict[str, World]
    queue: Queue
    started: list[str] = field(default_factory=list)

    def body(self, name: str):
        it = self.worlds[name]
        return body(name, it.status.wire() if it.status != Status() else None, priority=it.spec.priority)

    def look(self, name: str) -> None:
        it = self.worlds[name]
        self.queue.put(self.body(name))
        it.others = self.queue.entries
        started = it.status.resolved is not None
        it.turn()
        self.queue.put(self.body(name))
        if it.status.resolved is not None and not started:
            self.started.append(name)
        it.control()
        it.run_pods()
        it.finish_work()
        it.control()
        it.pass_time(6)

    def running(self) -> list[str]:
        return [n for n, it in self.worlds.items() if it.status.resolved is not None and not it.status.phase.is_final]


@pytest.mark.parametrize("seed", range(4))
def test_a_crowd_runs_two_at_a_time_in_its_order_and_over_restarts_of_the_operator(seed):
    chance, platform = random.Random(seed), limited(training=2)
    names = [f"i{n}" for n in range(5)]
    worlds = {
        n: World(given.spec(priority=chance.randint(0, 1)), platform, Iteration("lab", n, f"uid-{n}", created=given.T0))
        for n in names
    }
    crowd = Crowd(worlds, Queue(platform))
    for name in names:
        crowd.queue.put(crowd.body(name))
    for _ in range(600):
        if chance.random() < 0.05:
            crowd.queue = Queue(platform)  # a new operator reads what the API server holds
            for name in names:
                crowd.queue.put(crowd.body(name))
        crowd.look(chance.choice(names))
        assert len(crowd.running()) <= 2
        if all(it.status.phase.is_final for it in worlds.values()):
            break
    assert all(it.status.phase is Phase.SUCCEEDED for it in worlds.values())
    wanted = sorted(names, key=lambda n: (-worlds[n].spec.priority, n))
    # two places that are free at once may be taken in any order
    assert all(wanted.index(name) <= number + 1 for number, name in enumerate(crowd.started))
