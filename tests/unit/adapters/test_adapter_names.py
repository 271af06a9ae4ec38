"""Names of adapters and what clients may write in `model`."""

from __future__ import annotations

import pytest

from adapters.errors import BadName
from adapters.names import ByAlias, ByNumber, check_name, parse


@pytest.mark.parametrize("name", ["a", "support", "support-v2.1_x", "0", "a" * 63])
def test_good_names_are_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "Support", ".a", "-a", "a/b", "../a", "a b", "a,b", "a\n", "a@b", "a:1", "ä", "a" * 64, "a'b", "а"]
)
def test_names_that_could_be_read_as_something_else_are_refused(name: str) -> None:
    with pytest.raises(BadName, match="cannot name"):
        check_name(name)


def test_the_base_keeps_its_name() -> None:
    with pytest.raises(BadName, match="name of the base"):
        check_name("tidewell", reserved=frozenset({"tidewell"}))


def test_a_model_is_a_name_an_alias_or_a_number() -> None:
    assert parse("support") == ByAlias(name="support", alias="live")
    assert parse("support@candidate") == ByAlias(name="support", alias="candidate")
    assert parse("support:7") == ByNumber(name="support", number=7)


@pytest.mark.parametrize(
    "model", ["", "support:", "support:0", "support:07", "support:-1", "support:x", "support@", "a@b@c", "a@b:1"]
)
def test_other_spellings_are_refused(model: str) -> None:
    with pytest.raises(BadName):
        parse(model)
