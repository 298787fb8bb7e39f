"""Lines of `key=value`, as the scripts print them and the files of a device hold them."""

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from mender_oneshot.key_values import Values, parse, single

# What is printed, and what it means to the C++ client (blanks kept) and to mender-python-client (stripped).
TABLE: list[tuple[str, Values, Values]] = [
    ("", {}, {}),
    ("\n\n", {}, {}),
    ("mac=a", {"mac": ["a"]}, {"mac": ["a"]}),
    ("mac=a\n", {"mac": ["a"]}, {"mac": ["a"]}),
    ("mac=a\r\nip=b\r\n", {"mac": ["a"], "ip": ["b"]}, {"mac": ["a"], "ip": ["b"]}),
    ("mac=a\nmac=b", {"mac": ["a", "b"]}, {"mac": ["a", "b"]}),
    ("b=1\na=2\nb=3", {"b": ["1", "3"], "a": ["2"]}, {"b": ["1", "3"], "a": ["2"]}),
    ("mac=a\nmac=a", {"mac": ["a", "a"]}, {"mac": ["a", "a"]}),
    ("mac=", {"mac": [""]}, {"mac": [""]}),
    ("opts=a=b=c", {"opts": ["a=b=c"]}, {"opts": ["a=b=c"]}),
    ("=a", {}, {}),
    ("=", {}, {}),
    ("no separator\nmac=a", {"mac": ["a"]}, {"mac": ["a"]}),
    ("  mac=a  ", {"  mac": ["a  "]}, {"mac": ["a"]}),
    (" =a", {" ": ["a"]}, {}),
    ("mac = a", {"mac ": [" a"]}, {"mac ": [" a"]}),
    ("mac=a\x0bb\x85c\u2028d", {"mac": ["a\x0bb\x85c\u2028d"]}, {"mac": ["a\x0bb\x85c\u2028d"]}),
    ("Größe=groß 雪", {"Größe": ["groß 雪"]}, {"Größe": ["groß 雪"]}),
    ("# a=b", {"# a": ["b"]}, {"# a": ["b"]}),
]


@pytest.mark.parametrize(("text", "kept", "stripped"), TABLE, ids=[repr(row[0]) for row in TABLE])
def test_key_value_lines_are_split_at_the_first_equals_sign(
    text: str, kept: Values, stripped: Values
) -> None:
    assert parse(text, strip=False) == kept
    assert parse(text, strip=True) == stripped


keys = st.text(st.characters(exclude_characters="=\n", exclude_categories=["Cs"]), min_size=1, max_size=8)
values = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.tuples(keys, values)))
@examples(deadline=None)
def test_what_is_printed_is_read(pairs: list[tuple[str, str]]) -> None:
    expected: Values = {}
    for key, value in pairs:
        expected.setdefault(key, []).append(value)
    text = "".join(f"{key}={value}\n" for key, value in pairs)
    found = parse(text, strip=False)
    assert found == expected
    assert list(found) == list(expected)


@given(st.text(), st.booleans())
@examples(deadline=None)
def test_any_text_has_a_meaning(text: str, strip: bool) -> None:
    for key, found in parse(text, strip=strip).items():
        assert key
        assert found
        assert all(f"{key}={value}" in text for value in found)
        assert not strip or key == key.lstrip()


def test_the_two_forms_of_an_identity() -> None:
    values = parse("mac=a\nslot=1\nslot=2\n", strip=True)
    assert values == {"mac": ["a"], "slot": ["1", "2"]}  # "list"
    assert {key: single(value) for key, value in values.items()} == {
        "mac": "a",
        "slot": ["1", "2"],
    }  # "string"


@pytest.mark.parametrize(("values", "said"), [(["a"], "a"), ([""], ""), (["a", "b"], ["a", "b"]), ([], [])])
def test_one_value_is_said_as_itself(values: list[str], said: str | list[str]) -> None:
    assert single(values) == said
