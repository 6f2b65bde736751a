from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaeguard.data.image_set import ImageSet
from vaeguard.data.split import normal_numbers
from vaeguard.errors import UsageError
from vaeguard.settings.classes import parse_classes, resolve_classes

DIGITS = tuple("0123456789")


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("0-8", DIGITS, tuple(range(9))),
        ("0,2,5-7", DIGITS, (0, 2, 5, 6, 7)),
        (" 3 , 1 - 2 ,", DIGITS, (1, 2, 3)),
        ("good,ok", ("bad", "good", "ok"), (1, 2)),
        ("0-1", ("bad", "good", "ok"), (0, 1)),
        ("1", ("5", "1", "0"), (1,)),  # a name wins over an index
        ("1-2", ("1", "1-2", "2"), (1,)),  # and over a range
        ("a,b", ("a", "b", "a,b"), (2,)),
        ("ankle-boot", ("ankle", "ankle-boot", "boot"), (1,)),
    ],
)
def test_parse(text, names, expected):
    assert parse_classes(text, names) == expected


@pytest.mark.parametrize("text", ["", " ", ",", "10", "x", "8-0", "0-10", "-1", "1-", "0-999999999", "٣", "1.0"])
def test_wrong_text_is_an_error_that_names_the_classes(text):
    with pytest.raises(UsageError, match="classes are 0, 1, 2|is reversed"):
        parse_classes(text, DIGITS)


def test_an_index_is_no_fallback_where_names_are_numbers():
    with pytest.raises(UsageError, match="no class '0' \\(in '0-2'\\)"):
        parse_classes("0-2", ("1", "2", "3"))


def test_a_near_miss_is_suggested():
    with pytest.raises(UsageError, match="did you mean 'good'"):
        parse_classes("goood", ("bad", "good"))


def test_data_without_classes_has_none_to_choose_from():
    with pytest.raises(UsageError, match="the data have no classes"):
        parse_classes("0", ())


@given(st.sets(st.integers(0, 29), min_size=1))
def test_numbers_round_trip(indices):
    names = tuple(map(str, range(30)))
    assert parse_classes(",".join(names[k] for k in indices), names) == tuple(sorted(indices))


@given(st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,6}", fullmatch=True), min_size=1, unique=True), st.data())
def test_names_round_trip(names, data):
    indices = data.draw(st.sets(st.sampled_from(range(len(names))), min_size=1))
    assert parse_classes(",".join(names[k] for k in indices), names) == tuple(sorted(indices))


@given(st.text(max_size=20), st.lists(st.text(max_size=5), min_size=1, max_size=5, unique=True))
def test_any_text_gives_classes_or_a_usage_error(text, names):
    try:
        found = parse_classes(text, names)
    except UsageError:
        return
    assert found
    assert list(found) == sorted(set(found))
    assert 0 <= min(found) <= max(found) < len(names)


def test_classes_are_given_as_text_or_one_by_one():
    for given_as in ("0-2", ["0", "1", "2"], [0, 1, 2], range(3)):
        assert resolve_classes(given_as, DIGITS) == (0, 1, 2)
    assert resolve_classes(["a,b"], ("a,b", "c")) == (0,)
    assert resolve_classes(["good"], ("good",), must_leave_anomalies=True) == (0,)
    for wrong in ("0-9", range(10)):
        with pytest.raises(UsageError, match="every class, so there are no anomalies"):
            resolve_classes(wrong, DIGITS, must_leave_anomalies=True)
        assert resolve_classes(wrong, DIGITS) == tuple(range(10))
    with pytest.raises(UsageError, match="is empty"):
        resolve_classes([], DIGITS)


def test_a_fit_may_take_every_class_as_normal():
    images = ImageSet("x", np.zeros((4, 1, 2, 2), np.uint8), np.arange(4) % 2, ("good_a", "good_b"), [""] * 4, "")
    assert normal_numbers(images, "good_a,good_b") == normal_numbers(images, ["good_b", "good_a"]) == (0, 1)
