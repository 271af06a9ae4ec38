"""Cards, bank accounts, addresses of machines and phone numbers: what a run of digits is, and what it is not. Pure.

Each function gives (start, end) pairs in a text. Shape alone is never enough: a card has its issuer's prefix and length
and passes Luhn, an IBAN its country's length and mod 97, an address parses, a phone number is grouped like one or is
announced as one. So unix times, order numbers, hashes, versions, prices and dates stay what they are.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

#: A number begins no word, follows no hyphenated word (UUIDs, serials) and no decimal point. The letter of an escaped
#: line break, as in JSON kept within JSON, is not part of a word.
_START = r"(?:(?<![\w.,])(?<!\w-)|(?<=\\[nrt])|(?<=[^\d][.,]))"
_END = r"(?![\w]|[.,-]\d)"

_CARD = re.compile(
    _START
    + r"(?:\d{12,19}"
    + r"|\d{4}(?P<a>[ \u00a0-])\d{4}(?P=a)\d{4}(?P=a)\d{1,4}(?:(?P=a)\d{3})?"  # 4-4-4-4
    + r"|\d{4}(?P<b>[ \u00a0-])\d{6}(?P=b)\d{4,5})"  # 4-6-5
    + _END
)
_CARD_WORD = re.compile(r"\b(?:cards?|cc|credit|debit|visa|maestro|mastercard|amex)\b", re.IGNORECASE)
_CARD_CONTEXT = 60

#: Issuer's prefix, lengths. https://en.wikipedia.org/wiki/Payment_card_number
_ISSUERS = re.compile(
    r"4(?:\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-59]|[689]\d)\d{11}"  # Diners Club
    r"|35(?:2[89]|[3-8]\d)\d{12,15}|(?:1800|2131)\d{11}"  # JCB
    r"|(?:6011|64[4-9]\d|65\d{2}|62\d{2}|60\d{2}|81\d{2}|82\d{2}|508\d)\d{12,15}"  # Discover, UnionPay, RuPay
    r"|220[0-4]\d{12,15}"  # Mir
    r"|(?:50[0-9]{2}|5[6-8]\d{2}|6[0-9]{3})\d{8,15}"  # Maestro
)

_IBAN = re.compile(r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))[A-Za-z]{2}\d{2}(?=[ -]?[A-Za-z0-9]{4})")
#: https://www.swift.com/standards/data-standards/iban-international-bank-account-number
_IBAN_COUNTRIES = {
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
_IBAN_LENGTHS = {country: length for length, countries in _IBAN_COUNTRIES.items() for country in countries.split()}

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(rf"(?:(?<![\w.-])|(?<=\\[nrt])){_OCTET}(?:\.{_OCTET}){{3}}(?![\w-]|\.\d)")
_VERSION_WORD = re.compile(
    r"(?:\b(?:versions?|ver|v|release|build|firmware|driver|rev|section|chapter|clause|§)|[=<>~^]=?)[\s:=#.\"'(]*$",
    re.IGNORECASE,
)
_IPV6 = re.compile(
    r"(?:(?<![\w:.])|(?<=\\[nrt]))(?:[0-9A-Fa-f]{1,4}:|::?)(?:[0-9A-Fa-f]{0,4}:){1,6}(?:[0-9A-Fa-f]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])"
)

#: What each form cannot be without, as patterns that begin with a digit or a colon: to look for those costs almost
#: nothing in a text that has few. Between two digits of one number stand no more separators than these.
_TWELVE = re.compile(r"\d(?:[ \u00a0-]?\d){11}")
_LETTERS_DIGITS = re.compile(r"\d\d(?<=[A-Za-z]{2}\d\d)")
_DOTTED = re.compile(r"\d\.\d{1,3}\.\d")
_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
_NINE = re.compile(r"\d(?:[ ().\u00a0-]{0,3}\d){8}")
_SEVEN = re.compile(r"\d(?:[ ().\u00a0-]{0,15}\d){6}")
_PHONE_SHAPES = re.compile(
    _START
    + r"(?:"
    + r"(?:\+|00)\d{1,3}(?:[ .\u00a0-]?\(?\d{1,4}\)?){2,6}"  # +46 (0)8 928 571 38, 001-518-640-0854
    + r"|(?:1[ .-])?(?:\([2-9]\d{2}\)[ ]?|[2-9]\d{2}[ .-])\d{3}[ .-]\d{4}"  # (602)272-9781, 541-714-1388
    + r"|\(?0\d{1,4}\)?(?:[ .\u00a0-]\d{2,8}){1,5}"  # 0490 75 40 81, (08) 8747 6301
    + r")(?:[ ]?(?:x|ext\.?)[ ]?\d{1,5})?"
    + r"(?![\w]|[.,:/-]\d)"
)
_ANNOUNCING = (
    r"\b(?:(?:tele|mobile |cell )?phone(?: number| no\.?)?|tel|telefon|mobile(?: number)?|cell|fax|whats ?app|desk|sms"
    r"|(?:call|ring|text|phone|reach)(?: (?:me|us|him|her|them|back))?(?: on| at)|answering at|messages to)"
    r"[\s:.#(is]{1,6}"
)
_PHONE_ANNOUNCED = re.compile(
    _ANNOUNCING + r"(?P<number>[+(]?\d[\d ().\u00a0-]{5,20}\d(?:x\d{1,5})?)(?![\w]|[.,:/-]\d)",
    re.IGNORECASE,
)
#: The same right before a first digit, and how far back it may begin.
_ANNOUNCES = re.compile(_ANNOUNCING + r"[+(]?\Z", re.IGNORECASE)
_BEFORE = 40
#: Dates, and social security numbers.
_NOT_PHONE = re.compile(
    r"(?:19|20)\d{2}[-. ]\d{1,2}[-. ]\d{1,2}|\d{1,2}[-. ]\d{1,2}[-. ](?:19|20)?\d{2}(?: \d{1,2})?|\d{3}-\d{2}-\d{4}"
)


def cards(text: str) -> Iterator[tuple[int, int]]:
    """Payment cards: of a known issuer, or with a word for one nearby (always so below 14 digits, as parcels have)."""
    if not _TWELVE.search(text):
        return
    for match in _CARD.finditer(text):
        digits = _digits(match.group())
        start, end = match.span()
        if _luhn(digits) and (
            (len(digits) > 13 and _ISSUERS.fullmatch(digits))
            or _CARD_WORD.search(text, max(0, start - _CARD_CONTEXT), end + _CARD_CONTEXT)
        ):
            yield start, end


def ibans(text: str) -> Iterator[tuple[int, int]]:
    """International bank account numbers, in one piece or in groups."""
    if not _LETTERS_DIGITS.search(text):
        return
    for match in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(match.group()[:2].upper())
        if length is None:
            continue
        taken, position = "", match.start()
        while len(taken) < length and position < len(text):
            char = text[position]
            if char.isascii() and char.isalnum():
                taken += char
            elif char not in " -" or not text[position - 1].isalnum():
                break
            position += 1
        if len(taken) == length and not text[position : position + 1].isalnum() and _mod97(taken.upper()):
            yield match.start(), position


def machines(text: str) -> Iterator[tuple[int, int]]:
    """IP addresses, but for those that every machine has (loopback, unspecified, netmasks), and versions."""
    if _DOTTED.search(text):
        for match in _IPV4.finditer(text):
            before = text[max(0, match.start() - 24) : match.start()]
            if not match.group().startswith(("127.", "0.", "255.")) and not _VERSION_WORD.search(before):
                yield match.span()
    if _COLONS.search(text):
        for match in _IPV6.finditer(text):
            if _is_ipv6(match.group()):
                yield match.span()


def phones(text: str) -> Iterator[tuple[int, int]]:
    """Phone numbers: international, North American, with a trunk 0, or of any shape after a word that announces one."""
    if _NINE.search(text):
        for match in _PHONE_SHAPES.finditer(text):
            if _is_phone(match.group(), least=9):
                yield match.span()
    if any(_ANNOUNCES.search(text, max(0, each.start() - _BEFORE), each.start()) for each in _SEVEN.finditer(text)):
        for match in _PHONE_ANNOUNCED.finditer(text):
            if _is_phone(match["number"], least=7):
                yield match.span("number")


def _is_phone(number: str, *, least: int) -> bool:
    digits = _digits(re.split(r"x|ext", number, maxsplit=1)[0])
    return least <= len(digits) <= 15 and not _NOT_PHONE.fullmatch(number.strip("()"))


def _digits(text: str) -> str:
    return "".join(c for c in text if "0" <= c <= "9")


def _luhn(digits: str) -> bool:
    """https://en.wikipedia.org/wiki/Luhn_algorithm"""
    total = 0
    for place, digit in enumerate(map(int, reversed(digits))):
        total += digit if place % 2 == 0 else (digit * 2 - 9 if digit > 4 else digit * 2)
    return total % 10 == 0


def _mod97(iban: str) -> bool:
    """ISO 7064: the first four characters to the end, letters as numbers from 10 on, remainder 1."""
    return int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97 == 1


def _is_ipv6(text: str) -> bool:
    """Parses, names one machine, and is not a word of a programming language such as `a::b`."""
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified) and any(c.isdigit() for c in text)
