import pytest

from dpe_api.generation_spec import SourceKind
from dpe_jobs.generation.images import Origin
from dpe_jobs.generation.quality.licences import allow_list, allows, licence
from dpe_jobs.runtime import BadConfig


def origin(name: str, *parents: Origin) -> Origin:
    return Origin(SourceKind.POOL, "pool:s3://dpe/pool", "row 7", name, parents=parents)


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT AND (GPL-3.0-only OR CC0-1.0)", True),
        ("GPL-3.0-only OR MIT AND GPL-2.0-only", False),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("Apache-2.0 WITH LLVM-exception", True),
    ],
)
def test_an_expression_is_allowed_when_the_list_can_meet_it(expression, allowed):
    assert allows({"MIT", "CC0-1.0", "Apache-2.0 WITH LLVM-exception"}, expression) is allowed


def test_a_picture_of_another_licence_is_refused_and_the_reason_names_both():
    allowed = allow_list(["cc0-1.0", "MIT"])
    assert licence(origin("mit"), allowed) is None
    rejection = licence(origin("CC-BY-NC-4.0"), allowed)
    assert rejection is not None
    assert rejection == ("Licence", "pool:s3://dpe/pool row 7 is under CC-BY-NC-4.0, which is not in the list")


def test_what_an_edited_picture_was_made_of_counts_too():
    allowed = allow_list(["MIT"])
    assert licence(origin("MIT", origin("MIT")), allowed) is None
    rejection = licence(origin("MIT", origin("CC-BY-NC-4.0")), allowed)
    assert rejection is not None
    assert "CC-BY-NC-4.0" in rejection.detail


def test_an_unknown_licence_is_allowed_only_when_the_list_says_so():
    assert licence(origin(""), allow_list(["MIT"])) is not None
    assert licence(origin("all mine!"), allow_list(["MIT"])) is not None
    assert licence(origin(""), allow_list(["MIT", "LicenseRef-unknown"])) is None


def test_an_entry_that_is_no_identifier_is_bad_configuration():
    with pytest.raises(BadConfig, match=r"licences: 'CC-BY' is no SPDX"):
        allow_list(["MIT", "CC-BY"])
