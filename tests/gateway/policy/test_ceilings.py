import pytest

from thinfilm_gateway.policy.ceilings import Ceiling, LosslessOnly, UnknownProfile, profile, profile_names


def ratio(name: str, modality: str, body_part: str = "") -> float:
    found = profile(name).ceiling(modality, body_part)
    assert isinstance(found, Ceiling), found
    return found.ratio


@pytest.mark.parametrize(
    ("modality", "expected"), [("CT", 5), ("MR", 5), ("CR", 10), ("DX", 10), ("RF", 6), ("XA", 6), ("US", 10)]
)
def test_the_default_profile_has_the_lowest_of_the_known_values(modality: str, expected: float) -> None:
    assert ratio("esr-strict", modality) == expected


def test_a_body_part_has_the_value_of_its_entry_and_any_other_the_lowest_of_its_modality() -> None:
    assert ratio("drg-2009", "CT", "HEAD") == 5
    assert ratio("drg-2009", "CT", "CHEST") == 8
    assert ratio("drg-2009", "CT") == 5
    assert ratio("drg-2009", "CT", "KOPF") == 5
    assert ratio("car-2008", "CT", "CHEST") == 15
    assert ratio("car-2008", "MR", "CHEST") == 24


@pytest.mark.parametrize("name", profile_names())
@pytest.mark.parametrize(
    "modality", ["MG", "NM", "PT", "SEG", "RTIMAGE", "RTDOSE", "RTSTRUCT", "RTPLAN", "SR", "PX", ""]
)
def test_what_is_measured_or_unknown_has_no_ceiling_in_any_profile(name: str, modality: str) -> None:
    found = profile(name).ceiling(modality, "")
    assert isinstance(found, LosslessOnly)
    assert found.reason.endswith(".")


def test_a_radiograph_of_the_breast_is_a_mammogram() -> None:
    assert profile("car-2008").ceiling("DX", "BREAST") == profile("car-2008").ceiling("MG", "")


@pytest.mark.parametrize("name", profile_names())
def test_every_ceiling_tells_its_source(name: str) -> None:
    found = profile(name)
    assert found.name == name
    for ceiling in found.ceilings:
        assert ceiling.ratio > 1
        assert len(ceiling.citation) > 20
        assert len(ceiling.evidence) > 20
        assert 2005 < ceiling.date.year < 2026
    pairs = [(each.modality, part) for each in found.ceilings for part in each.body_parts or ("",)]
    assert len(set(pairs)) == len(pairs)


def test_the_evidence_says_where_a_table_was_not_seen() -> None:
    assert all("was not seen" in ceiling.evidence for ceiling in profile("esr-strict").ceilings)


def test_an_unknown_profile_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UnknownProfile, match="No profile is called 'mild'; choose among car-2008, drg-2009"):
        profile("mild")
