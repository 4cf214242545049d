import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dpe_api.artifacts import CategoryReport
from dpe_api.diagnosis_spec import Mixture, MixturePolicy
from dpe_jobs.diagnosis import intervals
from dpe_jobs.diagnosis.mixture import mix, shares_of, threshold_weights

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


mixtures = st.builds(
    Mixture,
    policy=st.sampled_from(POLICIES),
    exploration_floor=st.floats(0, 0.2),
    retention_floor=st.floats(0, 1),
    reach=st.floats(0, 1),
    target_accuracy=st.floats(0.1, 1),
)


@given(diagnoses(), mixtures, st.integers(1, 5000), st.integers(0, 9))
def test_quotas_sum_to_the_target_and_weights_to_one(categories, mixture, target, seed):
    quotas = mix(categories, mixture, target, seed=seed, round_number=0)
    assert sum(q.quota for q in quotas) == target
    assert sum(q.weight for q in quotas) == pytest.approx(1)
    assert all(abs(q.quota - q.weight * target) <= 1 + 1e-6 for q in quotas)


@given(diagnoses(), mixtures, st.integers(0, 9))
def test_no_category_falls_below_the_exploration_floor(categories, mixture, seed):
    quotas = mix(categories, mixture, 1000, seed=seed, round_number=0)
    floor = min(mixture.exploration_floor, 1 / len(quotas))
    assert all(q.weight >= floor - 1e-9 for q in quotas)


@given(diagnoses(), mixtures, st.randoms(), st.integers(0, 9))
def test_the_order_of_categories_does_not_matter(categories, mixture, random, seed):
    shuffled = random.sample(categories, len(categories))
    assert mix(categories, mixture, 100, seed=seed, round_number=1) == mix(
        shuffled, mixture, 100, seed=seed, round_number=1
    )


@given(diagnoses(), mixtures, st.data(), st.integers(0, 9))
def test_a_weaker_category_gets_no_smaller_share(categories, mixture, data, seed):
    chosen = data.draw(st.integers(0, len(categories) - 1))
    stronger = categories[chosen]
    assume(stronger.correct > 0)
    weaker = category(stronger.name, data.draw(st.integers(0, stronger.correct - 1)), stronger.n)
    weaker = weaker.model_copy(update={"pass_rate": stronger.pass_rate})
    before, after = (
        {
            q.name: q.weight
            for q in mix([*categories[:chosen], c, *categories[chosen + 1 :]], mixture, 100, seed=seed, round_number=0)
        }
        for c in (stronger, weaker)
    )
    assert after[stronger.name] >= before[stronger.name] - 1e-9


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


def test_no_category_at_all_is_an_error():
    with pytest.raises(ValueError, match="no category"):
        mix([], Mixture(), 10, seed=0, round_number=0)
