import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinfilm_gateway.index.folding import fold, fold_date, fold_person_name, fold_time, time_span


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("MÜLLER", "muller"),
        ("Straße", "strasse"),
        ("Øst Łódź", "ost lodz"),
        ("İstanbul", "istanbul"),
        ("Ŷǻ", "ya"),
        ("Йод", "иод"),
        ("\uff39\uff21\uff2d\uff21", "yama"),
        ("ﾔﾏﾀﾞ", "ヤマダ"),
        ("がか", "がか"),  # the mark makes another letter
        ("홍길동", "홍길동"),
        ("قباني", "قباني"),
    ],
)
def test_case_accents_and_width_do_not_count(text: str, folded: str) -> None:
    assert fold(text) == folded


@given(st.text(max_size=20))
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.text(max_size=20))
def test_case_never_counts(text: str) -> None:
    assert fold(text.casefold()) == fold(text)


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("Doe^Jane^^^", ("doe^jane", "", "")),
        (" Doe ^ Jane  Mary =", ("doe^jane mary", "", "")),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", ("yamada^tarou", "山田^太郎", "やまだ^たろう")),
        ("=山田", ("", "山田", "")),
        ("a=b=c=d", ("a", "b", "c=d")),
        ("^Jane", ("^jane", "", "")),
        ("", ("", "", "")),
    ],
)
def test_person_names_fold_by_component_group(name: str, groups: tuple[str, str, str]) -> None:
    assert fold_person_name(name) == groups


@pytest.mark.parametrize(
    ("value", "folded"),
    [
        ("20260504", "20260504"),
        ("2026.05.04", "20260504"),
        (" 20260504 ", "20260504"),
        ("20240229", "20240229"),
        ("20260229", ""),
        ("00000000", ""),
        ("202605", ""),
        ("2026.0504", ""),
        ("", ""),
    ],
)
def test_dates_fold_to_eight_digits_or_to_nothing(value: str, folded: str) -> None:
    assert fold_date(value) == folded


@pytest.mark.parametrize(
    ("value", "span"),
    [
        ("10", ("100000000000", "105959999999")),
        ("1030", ("103000000000", "103059999999")),
        ("103015", ("103015000000", "103015999999")),
        ("103015.5", ("103015500000", "103015599999")),
        ("103015.123456", ("103015123456", "103015123456")),
        ("10:30:15", ("103015000000", "103015999999")),
        ("235960", ("235960000000", "235960999999")),
        ("24", ("240000000000", "240000000000")),
        ("240000", ("240000000000", "240000000000")),
        ("24:00:00.000", ("240000000000", "240000000000")),
        ("240001", ("", "")),
        ("1060", ("", "")),
        ("103", ("", "")),
        ("noon", ("", "")),
    ],
)
def test_a_time_spans_what_its_precision_leaves_open(value: str, span: tuple[str, str]) -> None:
    assert time_span(value) == span
    assert fold_time(value) == span[0]
