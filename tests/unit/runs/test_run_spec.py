import pytest
from tests.unit.runs import given

from dpe_api.names import round_name
from dpe_api.run_spec import LONGEST_NAME, MOST_RETRIES, MOST_ROUNDS, MUTABLE, RunSpec, Template, run_immutability_rule
from dpe_api.spec import ENDPOINT_FIELDS, Spec


def test_the_template_is_an_iterations_spec_without_what_the_run_decides():
    assert set(Template.model_fields) == set(Spec.model_fields) - {"model", "suspend", "ttl_seconds_after_finished"}


def test_a_round_has_every_section_of_the_template():
    of = given.spec()
    made = of.after("shapes-1", 3)
    assert made.model.wire() == {"iterationRef": {"name": "shapes-1"}}
    assert made.seed == 3
    for name in set(Template.model_fields) - {"seed"}:
        assert getattr(made, name) == getattr(of.template, name)


def test_the_longest_name_of_a_round_is_a_name_of_an_iteration():
    assert len(round_name("x" * LONGEST_NAME, MOST_ROUNDS, MOST_RETRIES)) == 40


def test_retries_are_none_unless_they_are_asked_for():
    assert given.spec().retries == 0
    assert given.spec(onRejected="retryWithAnotherSeed").retries == 2
    assert given.spec(onRejected="retryWithAnotherSeed", maxRetries=5).retries == 5


def test_whoever_names_an_endpoint_in_an_iteration_may_name_one_in_a_template():
    checks = Template.model_json_schema()["x-kubernetes-validations"]
    named = {".endpoints", ".generation.sources", *(f".{field}" for field in ENDPOINT_FIELDS)}
    assert {c["fieldPath"] for c in checks} == named


@pytest.mark.parametrize("field", sorted(RunSpec.model_json_schema(by_alias=True)["properties"]))
def test_every_field_but_those_that_may_change_is_fixed_once_the_run_has_begun(field):
    assert (f"self.spec.{field} " in run_immutability_rule()["rule"]) == (field not in MUTABLE)
