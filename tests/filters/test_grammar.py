"""Text becomes a tree, or is refused with a word about where."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import BadFilter
from server.filters import check, parse, show
from server.filters.grammar import MAX_DEPTH, MAX_LENGTH, MAX_VALUES
from server.filters.syntax import And, Comparison, Or, Value
from tests.filters.trees import any_tree

A = Comparison("a", "==", (Value(("1",)),))
B = Comparison("b", "==", (Value(("2",)),))
C = Comparison("c", "==", (Value(("3",)),))


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a==1", A),
        ("a==1;b==2,c==3", Or((And((A, B)), C))),
        ("a==1 and b==2 or c==3", Or((And((A, B)), C))),
        ("a==1;(b==2,c==3)", And((A, Or((B, C))))),
        ("(a==1)and(b==2)", And((A, B))),
        (" a == 1 AND ( b=='2' ) ", And((A, B))),
        ("((a==1))", A),
    ],
)
def test_and_binds_tighter_than_or(text, tree):
    assert parse(text) == tree


@pytest.mark.parametrize(
    ("written", "pieces"),
    [
        ("cam*", ("cam", "")),
        ("*", ("", "")),
        ("a*b*c", ("a", "b", "c")),
        ('"a b*"', ("a b", "")),
        (r'"st\*r"', ("st*r",)),
        (r"'it\'s'", ("it's",)),
        (r'"a\\b"', ("a\\b",)),
        ('""', ("",)),
        ("2026-03-01T10:00:00+01:00", ("2026-03-01T10:00:00+01:00",)),
        ("and", ("and",)),
        ("größe", ("größe",)),
    ],
)
def test_values_are_bare_or_quoted_with_wildcards(written, pieces):
    tree = parse(f"name=={written}")
    assert tree == Comparison("name", "==", (Value(pieces),))


def test_lists_and_other_spellings():
    assert parse("tags=in=(a, 'b c')") == Comparison(
        "tags", "=in=", (Value(("a",)), Value(("b c",)))
    )
    spelt = {">": "=gt=", ">=": "=ge=", "<": "=lt=", "<=": "=le="}
    for sign, operator in spelt.items():
        assert parse(f"failures{sign}3") == parse(f"failures{operator}3")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "column 1: a field"),
        ("tags", "column 5: an operator"),
        ("tags==", "column 7: a value"),
        ("tags==a b", "column 9: `;`"),
        ("tags==a or", "column 11: a field"),
        ("(tags==a", "column 9: `)`"),
        ("tags=in=a", "column 9: `(`"),
        ("tags=in=(a;b)", "column 11: `)`"),
        ("tags=like=a", "column 5: one of =="),
        ('tags=="a', "column 7: a value"),
        ("tags==(a)", "column 7: a value"),
        ("tags==a\x00", "column 8: a control character"),
        ("tags==\ud800", "column 7: a control character"),
    ],
)
def test_what_is_wrong_is_said_at_its_column(text, told):
    with pytest.raises(BadFilter, match="column") as refused:
        parse(text)
    assert refused.value.code == "filter.syntax"
    assert refused.value.message.startswith(told)


@pytest.mark.parametrize(
    "text",
    [
        "name==" + "x" * MAX_LENGTH,
        "(" * (MAX_DEPTH + 1) + "a==1" + ")" * (MAX_DEPTH + 1),
        "tags=in=(" + ",".join("a" * (MAX_VALUES + 1)) + ")",
        ";".join(["a==1"] * (MAX_VALUES + 1)),
    ],
)
def test_size_is_bounded(text):
    with pytest.raises(BadFilter) as refused:
        parse(text)
    assert refused.value.code == "filter.too_long"


@given(any_tree)
def test_a_tree_is_read_back_as_it_was_written(tree):
    assert parse(show(tree)) == tree


junk = st.text(max_size=60) | st.lists(
    st.sampled_from(
        ["a", "==", "=in=", "(", ")", ";", ",", "'", '"', "\\", "*", " and ", " ", "="]
    ),
    max_size=30,
).map("".join)


@given(junk)
@settings(max_examples=300)
def test_junk_is_parsed_or_refused(text):
    try:
        tree = parse(text)
        assert parse(show(tree)) == tree
        check("devices", text)
    except BadFilter:
        pass


@pytest.mark.parametrize(
    ("kind", "text", "code"),
    [
        ("devices", "tags==line3;attr.gpu==orin;version.m>=2", None),
        ("devices", "group==any", None),
        ("events", "kind==assignment.*;at>-1d;data.error.code==health.failed", None),
        ("rollouts", "state=in=(active,paused);rollback==false", None),
        ("devices", "tagz==line3", "unknown_field"),
        ("devices", "attr==line3", "unknown_field"),
        ("devices", "attr.==line3", "unknown_field"),
        ("events", "tags==line3", "unknown_field"),
        ("rollouts", "attr.gpu==orin", "unknown_field"),
        ("devices", "failures==many", "bad_value"),
        ("devices", "failures==2147483648", "bad_value"),
        ("devices", "version.m==1*", "bad_value"),
        ("devices", "name>cam", "bad_value"),
        ("devices", "attr.ram>lots", "bad_value"),
        ("devices", "last_seen<yesterday", "bad_value"),
        ("devices", "last_seen<-999999999w", "bad_value"),
        ("devices", "last_seen<0001-01-01T00:00:00+14:00", "bad_value"),
        ("devices", "tags=null=maybe", "bad_value"),
        ("devices", "group==a*", "bad_value"),
        ("devices", "group>a", "bad_value"),
        ("rollouts", "rollback==yes", "bad_value"),
    ],
)
def test_fields_and_values_are_checked_without_a_database(kind, text, code):
    if code is None:
        check(kind, text)
        return
    with pytest.raises(BadFilter) as refused:
        check(kind, text)
    assert refused.value.code == f"filter.{code}"


def test_an_unknown_field_is_answered_with_the_known_ones():
    with pytest.raises(BadFilter, match=r"column 9: there is no field 'x'.*tags.*attr\.<name>"):
        check("devices", "tags==a;x==b")
