from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dpe_api.artifacts import CategoryReport, Interval
from dpe_api.diagnosis_spec import Mixture, MixtureMemory, MixturePolicy
from dpe_jobs.diagnosis import intervals
from dpe_jobs.diagnosis.mixture import (
    Memory,
    Past,
    certainty_of_no_gain,
    gap_weights,
    mix,
    shares_of,
    smooth,
    thompson_weights,
    threshold_weights,
    tried,
)

POLICIES = list(MixturePolicy)


def category(name: str, correct: int, n: int, passed: float | None = None) -> CategoryReport:
    """A category as a diagnosis reports it; sampled as often right as greedy unless `passed` says otherwise."""
    rate = correct / n if n and passed is None else passed
    return CategoryReport(
        name=name,
        n=n,
        errors=0,
        correct=correct,
        accuracy=intervals.accuracy(correct, n, 0.95),
        rollouts=9 * n,
        pass_rate=intervals.pass_rate([rate] * n, 9 * n, 0.95) if n and rate is not None else None,
    )


@st.composite
def diagnoses(draw):
    names = draw(st.lists(st.text("abcdefgh", min_size=1, max_size=4), min_size=1, max_size=12, unique=True))
    found = []
    for name in names:
        n = draw(st.integers(0, 60))
        found.append(category(name, draw(st.integers(0, n)), n, draw(st.floats(0, 1))))
    return found


@st.composite
def intervals_of_change(draw):
    low, value, high = sorted(draw(st.tuples(*[st.floats(-1, 1)] * 3)))
    return Interval(value=value, low=low, high=high)


pasts = st.builds(
    Past,
    share=st.one_of(st.none(), st.floats(0, 1)),
    kept=st.integers(0, 100_000),
    change=st.one_of(st.none(), intervals_of_change()),
)


@st.composite
def memories(draw, categories):
    """What a previous round left: of some of these categories, and of one that is gone."""
    known = [c.name for c in categories if draw(st.booleans())]
    return Memory({name: draw(pasts) for name in [*known, "gone"]}, draw(st.sampled_from([0.8, 0.95, 0.99])))


@st.composite
def rounds(draw):
    """A diagnosis, a memory of the round before it, and what the sources can supply."""
    found = draw(diagnoses())
    supply = {c.name: draw(st.one_of(st.none(), st.integers(0, 5000))) for c in found if draw(st.booleans())}
    return found, draw(st.one_of(st.none(), memories(found))), supply


mixtures = st.builds(
    Mixture,
    memory=st.builds(MixtureMemory, smoothing=st.floats(0, 0.95), damping=st.floats(0, 1)),
    policy=st.sampled_from(POLICIES),
    exploration_floor=st.floats(0, 0.2),
    retention_floor=st.floats(0, 1),
    reach=st.floats(0, 1),
    target_accuracy=st.floats(0.1, 1),
)


@given(rounds(), mixtures, st.integers(1, 5000), st.integers(0, 9))
def test_quotas_sum_to_the_target_or_the_supply_and_weights_to_one(seen, mixture, target, seed):
    categories, memory, supply = seen
    quotas = mix(categories, mixture, target, seed=seed, round_number=0, memory=memory, supply=supply)
    limits = [supply.get(q.name) for q in quotas]
    total = target if None in limits else min(target, sum(limits))
    assert sum(q.quota for q in quotas) == total
    assert all(q.supply is None or 0 <= q.quota <= q.supply for q in quotas)
    assert sum(q.weight for q in quotas) == pytest.approx(1)
    if not supply:
        assert all(abs(q.quota - q.weight * target) <= 1 + 1e-6 for q in quotas)


@given(rounds(), mixtures, st.integers(0, 9))
def test_no_category_falls_below_the_exploration_floor(seen, mixture, seed):
    categories, memory, supply = seen
    quotas = mix(categories, mixture, 1000, seed=seed, round_number=0, memory=memory, supply=supply)
    floor = min(mixture.exploration_floor, 1 / len(quotas))
    assert all(q.weight >= floor - 1e-9 for q in quotas)


@given(rounds(), mixtures, st.integers(0, 9))
def test_out_of_reach_and_never_asked_get_the_exploration_floor_and_no_more(seen, mixture, seed):
    categories, memory, supply = seen
    quotas = mix(categories, mixture, 1000, seed=seed, round_number=0, memory=memory, supply=supply)
    asked = {c.name for c in categories if c.n}
    left_alone = [q for q in quotas if not q.reachable or q.name not in asked]
    floor = min(mixture.exploration_floor, 1 / len(quotas))
    if len(left_alone) < len(quotas):
        assert all(q.weight == pytest.approx(floor) for q in left_alone)


@given(rounds(), mixtures, st.randoms(), st.integers(0, 9))
def test_the_order_of_categories_does_not_matter(seen, mixture, random, seed):
    categories, memory, supply = seen
    shuffled = random.sample(categories, len(categories))
    if memory is not None:
        names = random.sample(list(memory.categories), len(memory.categories))
        memory = Memory({name: memory.categories[name] for name in names}, memory.confidence)
    there, again = (
        mix(found, mixture, 100, seed=seed, round_number=1, memory=memory, supply=supply)
        for found in (categories, shuffled)
    )
    assert there == again


@pytest.mark.parametrize("policy", POLICIES)
@given(seen=rounds(), mixture=mixtures, data=st.data(), seed=st.integers(0, 9))
def test_a_weaker_category_gets_no_smaller_share_and_no_smaller_quota(policy, seen, mixture, data, seed):
    categories, memory, supply = seen
    mixture = mixture.model_copy(update={"policy": policy})
    chosen = data.draw(st.integers(0, len(categories) - 1))
    stronger = categories[chosen]
    assume(stronger.correct > 0)
    weaker = category(stronger.name, data.draw(st.integers(0, stronger.correct - 1)), stronger.n)
    weaker = weaker.model_copy(update={"pass_rate": stronger.pass_rate})
    before, after = (
        {
            q.name: q
            for q in mix(
                [*categories[:chosen], c, *categories[chosen + 1 :]],
                mixture,
                100,
                seed=seed,
                round_number=0,
                memory=memory,
                supply=supply,
            )
        }
        for c in (stronger, weaker)
    )
    assert after[stronger.name].weight >= before[stronger.name].weight - 1e-9
    assert after[stronger.name].quota >= before[stronger.name].quota


@pytest.mark.parametrize("policy", [p for p in POLICIES if p is not MixturePolicy.THOMPSON])
@given(
    correct=st.lists(st.integers(0, 40), min_size=2, max_size=8),
    mixture=mixtures,
    smoothing=st.sampled_from([0.0, 0.5]),
)
def test_of_two_categories_that_were_asked_alike_the_weaker_gets_no_less(policy, correct, mixture, smoothing):
    memory = MixtureMemory(smoothing=smoothing)
    mixture = mixture.model_copy(update={"policy": policy, "memory": memory})
    categories = [category(f"c{i}", k, 40, 0.5) for i, k in enumerate(correct)]
    equal = Memory({c.name: Past(share=1 / len(categories)) for c in categories})
    quotas = mix(categories, mixture, 100_000, seed=0, round_number=0, memory=equal)
    by_strength = sorted(zip(correct, [q.weight for q in quotas], [q.quota for q in quotas], strict=True))
    for (weak, weight, quota), (strong, less_weight, less_quota) in pairwise(by_strength):
        assert weak == strong or (weight >= less_weight - 1e-9 and quota >= less_quota - 1)


@given(diagnoses(), mixtures, st.integers(0, 9))
def test_a_strong_category_weighs_at_least_what_retention_promises(categories, mixture, seed):
    quotas = {q.name: q for q in mix(categories, mixture, 100, seed=seed, round_number=0)}
    strong = [c for c in categories if quotas[c.name].retention]
    assert all(c.accuracy.value >= mixture.target_accuracy and quotas[c.name].reachable for c in strong)
    trained = [q for q in quotas.values() if q.reachable]
    if strong and mixture.retention_floor > 0 and len(trained) == len(quotas) and all(c.n for c in categories):
        # no weight is above 2, so that the share is at least floor / (floor + 2 for each other one)
        least = mixture.retention_floor / (mixture.retention_floor + 2 * (len(quotas) - 1))
        assert all(quotas[c.name].weight >= min(least, 1 / len(quotas)) - 1e-9 for c in strong)


def test_bands_are_the_papers():
    accuracy = np.array([0.0, 0.6999, 0.70, 0.7499, 0.75, 0.8499, 0.85, 0.8999, 0.90, 1.0])
    assert threshold_weights(accuracy).tolist() == [2.0, 2.0, 1.5, 1.5, 1.0, 1.0, 0.8, 0.8, 0.5, 0.5]


def measured() -> list[CategoryReport]:
    """A small model on coloured shapes, 30 rows each."""
    return [
        category("color", 30, 30, 0.94),
        category("color_fine", 8, 30, 0.41),
        category("shape", 23, 30, 0.66),
        category("shape_ref", 14, 30, 0.34),
        category("exist_color", 28, 30, 0.89),
        category("exist_shape", 24, 30, 0.80),
        category("negation", 3, 30, 0.05),
    ]


@pytest.mark.parametrize("policy", POLICIES)
def test_strong_categories_are_kept_and_those_out_of_reach_are_left_alone(policy):
    quotas = {q.name: q for q in mix(measured(), Mixture(policy=policy), 192, seed=0, round_number=0)}
    assert {n for n, q in quotas.items() if not q.reachable} == {"negation"}
    assert quotas["negation"].weight == pytest.approx(0.02)
    assert {n for n, q in quotas.items() if q.retention} == {"color", "exist_color"}
    assert quotas["color"].quota >= 8
    if policy is not MixturePolicy.UNIFORM:
        assert quotas["color_fine"].quota > quotas["color"].quota


def test_a_category_whose_interval_straddles_reach_is_still_trained():
    straddling = CategoryReport(
        name="a",
        n=10,
        errors=0,
        correct=1,
        accuracy=intervals.accuracy(1, 10, 0.95),
        rollouts=90,
        pass_rate=intervals.pass_rate([0.1] * 10, 90, 0.95),
    )
    assert straddling.pass_rate is not None
    assert straddling.pass_rate.value < 0.2 < straddling.pass_rate.high
    quotas = mix([straddling, category("b", 30, 30)], Mixture(), 100, seed=0, round_number=0)
    assert quotas[0].reachable
    assert quotas[0].quota > 50


@pytest.mark.parametrize("right", [0.0, 1 / 9])
def test_seventeen_rows_without_a_success_are_out_of_reach_as_they_are_with_one(right):
    rate = intervals.pass_rate([0.0] * 16 + [right], 153, 0.95)
    never = category("a", 0, 17).model_copy(update={"pass_rate": rate})
    quotas = mix([never, category("b", 10, 17)], Mixture(), 100, seed=0, round_number=0)
    assert [(q.name, q.quota, q.reachable) for q in quotas] == [("a", 2, False), ("b", 98, True)]


def test_a_category_never_asked_gets_the_exploration_floor():
    quotas = mix([category("a", 0, 0), category("b", 10, 30)], Mixture(), 100, seed=0, round_number=0)
    assert [(q.name, q.quota, q.reachable, q.retention) for q in quotas] == [
        ("a", 2, True, False),
        ("b", 98, True, False),
    ]


def test_when_everything_is_out_of_reach_all_get_the_same():
    quotas = mix([category(n, 0, 30) for n in "abc"], Mixture(), 100, seed=0, round_number=0)
    assert sorted(q.quota for q in quotas) == [33, 33, 34]
    assert not any(q.reachable for q in quotas)


def test_thompson_draws_differ_by_round_and_are_repeatable():
    def weights(round_number: int) -> list[float]:
        mixture = Mixture(policy=MixturePolicy.THOMPSON)
        return [q.weight for q in mix(measured(), mixture, 100, seed=0, round_number=round_number)]

    assert weights(0) == weights(0)
    assert weights(0) != weights(1)


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=20).flatmap(
        lambda w: st.tuples(st.just(w), st.lists(st.booleans(), min_size=len(w), max_size=len(w)))
    ),
    st.floats(0, 1),
)
@example(([0.0, 5e-324], [False, False]), 1.0)  # the smallest weight that there is, times a half, is zero
def test_shares_sum_to_one_whatever_the_floor(weights_and_pins, floor):
    weights, pins = weights_and_pins
    shares = shares_of(np.array(weights), np.array(pins), floor)
    assert shares.sum() == pytest.approx(1)
    assert (shares >= min(floor, 1 / len(weights)) - 1e-9).all()


def test_the_gap_is_measured_from_the_lower_end_of_the_interval():
    assert gap_weights(np.array([0.2, 0.9, 1.0]), 0.9) == pytest.approx([0.7, 0.0, 0.0])
    few, many = category("few", 6, 10, 0.6), category("many", 60, 100, 0.6)
    quotas = mix([few, many], Mixture(policy=MixturePolicy.GAP), 100, seed=0, round_number=0)
    assert quotas[0].weight > quotas[1].weight, "what is little known counts as weak"


def test_thompson_weights_are_gaps_to_draws_from_the_posterior():
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    weights = thompson_weights(np.full(20_000, 12.0), np.full(20_000, 20.0), quantiles, 1.0)
    assert 1 - weights.mean() == pytest.approx(12.5 / 21, abs=1e-4)  # the mean of Beta(12.5, 8.5)


@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.floats(0, 1), st.floats(1e-10, 1 - 1e-10)), min_size=1, max_size=8),
    mixtures,
    st.sampled_from([0, 1, 2**31]),
)
def test_extreme_inputs_give_numbers(rows, mixture, seed):
    categories = []
    for i, (n, share, _) in enumerate(rows):
        correct = min(int(n * share), n)
        value = correct / n if n else 0.0
        edge = Interval(value=value, low=value, high=value)  # no width at all
        categories.append(
            CategoryReport(name=f"c{i}", n=n, errors=0, correct=correct, accuracy=edge, rollouts=n, pass_rate=edge)
        )
    memory = Memory({c.name: Past(0.0, 0, Interval(value=0, low=0, high=0)) for c in categories})
    for q in mix(categories, mixture, 1_000_000, seed=seed, round_number=0, memory=memory):
        assert np.isfinite([q.weight, q.damped]).all()
    n, share, uniforms = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    assert np.isfinite(thompson_weights(np.floor(n * share), n, uniforms, 0.9)).all()


def shares(quotas):
    return {q.name: q.weight for q in quotas}


def remembered(**past: Past) -> Memory:
    return Memory(past)


@given(diagnoses(), mixtures, memories([]), st.integers(0, 9))
def test_without_memory_of_these_categories_a_round_is_as_a_first_one(categories, mixture, memory, seed):
    first = mix(categories, mixture, 100, seed=seed, round_number=3)
    later = mix(categories, mixture, 100, seed=seed, round_number=3, memory=memory)
    assert [q.quota for q in later] == [q.quota for q in first]
    assert [q.weight for q in later] == pytest.approx([q.weight for q in first])


@given(
    st.lists(st.tuples(st.floats(0, 1), st.one_of(st.just(float("nan")), st.floats(0, 1))), min_size=1, max_size=12),
    st.floats(0, 0.95),
)
def test_smoothed_shares_lie_between_old_and_new_and_have_the_same_sum(pairs, smoothing):
    now, before = (np.array(column) for column in zip(*pairs, strict=True))
    smoothed = smooth(now, before, smoothing)
    known = ~np.isnan(before)
    assert smoothed[~known].tolist() == now[~known].tolist()
    assert smoothed.sum() == pytest.approx(now.sum())
    if before[known].sum() > 0:
        scaled = before[known] / before[known].sum() * now[known].sum()
        slack = 1e-9
        assert (smoothed[known] >= np.minimum(now[known], scaled) - slack).all()
        assert (smoothed[known] <= np.maximum(now[known], scaled) + slack).all()


def test_smoothing_is_exponential_over_rounds():
    mixture = Mixture(policy=MixturePolicy.GAP, memory=MixtureMemory(smoothing=0.5))
    categories = [category("a", 10, 50, 0.5), category("b", 35, 50, 0.5)]
    target = mix(categories, mixture, 100, seed=0, round_number=0)[0].weight
    share, distances = 0.2, []
    for number in range(1, 5):
        memory = remembered(a=Past(share=share), b=Past(share=1 - share))
        share = shares(mix(categories, mixture, 100, seed=0, round_number=number, memory=memory))["a"]
        distances.append(target - share)
    assert distances == pytest.approx([(target - 0.2) * 0.5**k for k in range(1, 5)])


def test_a_category_out_of_reach_keeps_nothing_of_its_earlier_share():
    mixture = Mixture(memory=MixtureMemory(smoothing=0.9))
    memory = remembered(color=Past(share=0.1), negation=Past(share=0.9))
    quotas = shares(mix(measured(), mixture, 100, seed=0, round_number=1, memory=memory))
    assert quotas["negation"] == pytest.approx(0.02)


def test_a_category_that_had_no_share_gets_what_the_diagnosis_says():
    mixture = Mixture(memory=MixtureMemory(smoothing=0.9))
    without = shares(mix(measured(), mixture, 100, seed=0, round_number=1))
    memory = remembered(**{c.name: Past(share=0.2) for c in measured() if c.name != "color_fine"})
    smoothed = shares(mix(measured(), mixture, 100, seed=0, round_number=1, memory=memory))
    assert smoothed["color_fine"] == pytest.approx(without["color_fine"])
    assert smoothed["shape_ref"] < without["shape_ref"]


NO_GAIN = Interval(value=-0.04, low=-0.08, high=0.0)
GAIN = Interval(value=0.2, low=0.1, high=0.3)
UNKNOWN = Interval(value=0.0, low=-0.4, high=0.4)


def damped(change: Interval | None, kept: int, others: int = 50) -> float:
    """What `a` loses at full damping, when four other categories got `others` samples each."""
    mixture = Mixture(memory=MixtureMemory(damping=1))
    past = {"a": Past(change=change, kept=kept)} | {n: Past(change=GAIN, kept=others) for n in "bcde"}
    categories = [category(n, 20, 40, 0.5) for n in "abcde"]
    quotas = mix(categories, mixture, 100, seed=0, round_number=1, memory=Memory(past))
    assert all(q.damped == 0 for q in quotas[1:])
    return quotas[0].damped


def test_a_category_whose_many_samples_surely_brought_nothing_is_damped():
    assert damped(NO_GAIN, 50) > 0.95
    assert damped(NO_GAIN, 500) > 0.95


def test_a_gain_or_an_open_question_is_not_damped():
    assert damped(GAIN, 50) == 0
    assert damped(UNKNOWN, 50) < 0.1
    assert damped(None, 50) == 0


def test_a_category_that_got_next_to_no_samples_is_not_damped():
    assert damped(NO_GAIN, 0) == 0
    assert damped(NO_GAIN, 4) == 0, "4 of 204 samples: the exploration floor"
    assert damped(NO_GAIN, 8) < 0.15
    assert 0.3 < damped(NO_GAIN, 25) < 0.6


def test_damping_takes_its_part_of_the_weight():
    mixture = Mixture(memory=MixtureMemory(damping=0.5), exploration_floor=0)
    past = remembered(a=Past(change=Interval(value=-1, low=-1, high=-1), kept=50), b=Past(change=GAIN, kept=50))
    quotas = mix([category(n, 20, 40, 0.5) for n in "ab"], mixture, 300, seed=0, round_number=1, memory=past)
    assert [(q.quota, q.damped) for q in quotas] == [(100, 0.5), (200, 0.0)]


def test_damping_does_not_go_below_the_retention_floor():
    mixture = Mixture(memory=MixtureMemory(damping=1), exploration_floor=0)
    past = remembered(a=Past(change=NO_GAIN, kept=50), b=Past(change=GAIN, kept=50))
    quotas = shares(
        mix([category("a", 38, 40), category("b", 20, 40)], mixture, 100, seed=0, round_number=1, memory=past)
    )
    assert quotas["a"] == pytest.approx(0.15 / 2.15)


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 1), st.sampled_from([0.8, 0.95]))
def test_the_more_a_category_gained_the_less_sure_is_no_gain(one, other, half, confidence):
    change = np.sort([one, other])
    less, more = certainty_of_no_gain(change, change - half, change + half, confidence)
    assert 0 <= more <= less <= 1


def test_certainty_of_no_gain_is_twice_the_probability_less_one():
    change = np.array([0.02, 0.02 - 0.1, 0.02 - 0.1])
    half = np.array([0.1, 0.1, 0.2])
    # 1.96 and 0.98 standard errors below the least gain
    assert certainty_of_no_gain(change, change - half, change + half, 0.95) == pytest.approx([0, 0.95, 0.673], abs=1e-3)


def test_how_far_a_category_was_tried_goes_from_the_floor_to_an_equal_share():
    assert tried(np.array([50.0, 30.0, 18.0, 2.0]), 0.02) == pytest.approx([1, 1, 0.16 / 0.23, 0])
    assert tried(np.zeros(3), 0.02).tolist() == [0, 0, 0]
    assert tried(np.ones(3), 0.4).tolist() == [0, 0, 0], "with such a floor all get the same"


def test_what_cannot_be_supplied_goes_to_the_others_and_the_weights_stay():
    supply = {"color_fine": 10, "shape_ref": 0, "shape": None}
    free = mix(measured(), Mixture(), 192, seed=0, round_number=0)
    limited = {q.name: q for q in mix(measured(), Mixture(), 192, seed=0, round_number=0, supply=supply)}
    assert {n: q.weight for n, q in limited.items()} == shares(free)
    assert (limited["color_fine"].quota, limited["shape_ref"].quota) == (10, 0)
    assert limited["negation"].quota == 4, "out of reach is no place for what is left over"
    assert sum(q.quota for q in limited.values()) == 192


def test_no_category_at_all_is_an_error():
    with pytest.raises(ValueError, match="no category"):
        mix([], Mixture(), 10, seed=0, round_number=0)
