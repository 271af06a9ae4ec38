"""The error tree in the docstring is the one in the code, and each error says its code."""

from __future__ import annotations

import re

from adapters import errors
from adapters.errors import AdapterError, Conflict, Rejected, shown


def tree() -> dict[str, type[AdapterError]]:
    """Those of this floor's own file; rooms have trees of their own."""
    return {cls.__name__: cls for cls in AdapterError.__subclasses__() if cls.__module__ == errors.__name__}


def test_the_docstring_draws_every_error() -> None:
    assert set(re.findall(r"^[├└]── (\w+)", errors.__doc__ or "", re.MULTILINE)) == set(tree())


def test_codes_are_stable_words_of_their_own() -> None:
    codes = [cls.code for cls in tree().values()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)
    assert [name for name, cls in tree().items() if cls.retryable] == ["ProbeAway", "SourceUnavailable", "Unavailable"]


def test_one_reason_is_one_reason() -> None:
    reason = errors.Reason(code="c", field="r", found="9", allowed="8", advice="Lower it.")
    assert str(Rejected([reason])) == "The adapter was refused for 1 reason:\n- r: found 9; allowed: 8. Lower it."
    assert reason.document()["found"] == "9"


def test_a_conflict_knows_who_was_there_first() -> None:
    assert (Conflict("moved", moved_by="ann", moved_at=1.0).moved_by, Conflict("moved").moved_at) == ("ann", None)


def test_shown_text_is_short_and_on_one_line() -> None:
    assert shown("a\nb") == "'a\\nb'"
    assert len(shown("x" * 1000, quote=False)) == 120
    assert shown([1, 2]) == "[1, 2]"
