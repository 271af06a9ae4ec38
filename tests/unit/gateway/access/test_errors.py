from __future__ import annotations

from collections.abc import Iterator

from gateway.access import errors


def every(cls: type[errors.AccessError]) -> Iterator[type[errors.AccessError]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from every(sub)


def test_the_tree_is_drawn_in_the_docstring() -> None:
    drawn = errors.__doc__ or ""
    assert all(cls.__name__ in drawn for cls in every(errors.AccessError))


def test_each_error_says_its_code_or_takes_over_its_parents() -> None:
    codes = [cls.__dict__["code"] for cls in every(errors.AccessError) if "code" in cls.__dict__]
    assert len(set(codes)) == len(codes)
    assert all(code == code.lower() and code.replace("_", "").isalpha() for code in codes)
