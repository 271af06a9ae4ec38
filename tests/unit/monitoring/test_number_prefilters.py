"""Looking first for what a number cannot be without changes nothing of what is found."""

from __future__ import annotations

import random
import re

import pytest

from monitoring.safety import numbers

PIECES = (
    "call me on ", "phone number: ", "tel. ", "desk is (", "Mobile ", "fax#", "reach us at ", "version ", "order ",
    "+46 (0)8 928 571 38", "001-518-640-0854", "(602)272-9781", "541-714-1388", "0490 75 40 81", "(08) 8747 6301",
    "1234567", "12 34 56 7", "4111 1111 1111 1111", "3714 496353 98431", "DE89 3704 0044 0532 0130 00", "card ",
    "GB82WEST12345698765432", "192.168.1.20", "10.0.0.300", "1.2.3", "2001:db8::1", "fe80::1", "a::b", "12:30:15",
    "555 0100x12", "12345-67", "\n", "\\n", " ", ", ", ".", "-", "(", ")", "x", "ext. 5", "7", "89", "0", "+", "and ",
    "\u00a0", "\u0661\u0662\u0663",
)  # fmt: skip


def texts(count: int) -> list[str]:
    rng = random.Random(7)
    return ["".join(rng.choice(PIECES) for _ in range(rng.randint(1, 9))) for _ in range(count)]


def all_phones(said: str) -> list[tuple[int, int]]:
    shapes = numbers._PHONE_SHAPES.finditer(said)
    announced = numbers._PHONE_ANNOUNCED.finditer(said)
    return [
        *(each.span() for each in shapes if numbers._is_phone(each.group(), least=9)),
        *(each.span("number") for each in announced if numbers._is_phone(each["number"], least=7)),
    ]


@pytest.mark.slow
def test_every_phone_number_is_found_that_was_found_without() -> None:
    said = texts(20_000)
    found = [list(numbers.phones(each)) for each in said]
    assert found == [all_phones(each) for each in said]
    assert sum(map(bool, found)) > 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "first"),
    [
        (numbers._CARD, numbers._TWELVE),
        (numbers._IBAN, numbers._LETTERS_DIGITS),
        (numbers._IPV4, numbers._DOTTED),
        (numbers._IPV6, numbers._COLONS),
    ],
)
def test_no_form_occurs_without_what_is_looked_for_first(form: re.Pattern[str], first: re.Pattern[str]) -> None:
    said = [each for each in texts(20_000) if form.search(each)]
    assert len(said) > 100
    assert all(first.search(each) for each in said)
