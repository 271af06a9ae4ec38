"""What the redactor finds, what it must leave alone, and how well it does on public data."""

from __future__ import annotations

import base64
import gzip
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from monitoring.safety.redact import redact, redact_json

PII = Path(__file__).parents[4] / "shared" / "data" / "pii" / "presidio_synth_dataset_v2.json.gz"
KINDS = {
    "EMAIL_ADDRESS": "EMAIL",
    "IP_ADDRESS": "IP",
    "IBAN_CODE": "IBAN",
    "CREDIT_CARD": "CARD",
    "PHONE_NUMBER": "PHONE",
}
LETTERS = "abcDEF0123456789ghiJKL"


def tail(length: int) -> str:
    """Made here, so that no scanner takes these files for a leak."""
    return (LETTERS * 10)[:length]


FOUND = [
    ("mail bob.o+news@mail.example.co.uk now", "mail [EMAIL] now"),
    ("<jörg@müller.example>", "<[EMAIL]>"),
    ("a@b.io, c@d.org.", "[EMAIL], [EMAIL]."),
    ("card 4111 1111 1111 1111, exp 12/26", "card [CARD], exp 12/26"),
    ("card 4111-1111-1111-1111", "card [CARD]"),
    ("amex 3782 822463 10005", "amex [CARD]"),
    ("pay with 5555555555554444.", "pay with [CARD]."),
    ("my old visa 4222222222222", "my old visa [CARD]"),
    ("IBAN DE89 3704 0044 0532 0130 00 and more", "IBAN [IBAN] and more"),
    ("gb82west12345698765432", "[IBAN]"),
    ("GB82WEST12345698765432 FR1420041010050500013M02606", "[IBAN] [IBAN]"),
    ("client_ip = ?%//!%20\\|106.31.73.20|%20/", "client_ip = ?%//!%20\\|[IP]|%20/"),
    ("from 8.8.8.8:443 to 10.1.2.3.", "from [IP]:443 to [IP]."),
    ("at 2001:db8::8a2e:370:7334 or fe80::1", "at [IP] or [IP]"),
    ("::ffff:203.0.113.9 called", "[IP] called"),
    ("+46 (0)8 928 571 38 fax", "[PHONE] fax"),
    ("(602)272-9781 or 541-714-1388 x22", "[PHONE] or [PHONE]"),
    ("+447700921916", "[PHONE]"),
    ("ring 0490 75 40 81.", "ring [PHONE]."),
    ("call me at 3074185296", "call me at [PHONE]"),
    ("Phone: 467 3395", "Phone: [PHONE]"),
    ("Tel. 03.93.92.16.85", "Tel. [PHONE]"),
    (f"sk-proj-{tail(48)}", "[SECRET]"),
    (f"key sk-{tail(24)}.", "key [SECRET]."),
    (f"OPENAI_API_KEY=sk-ant-api03-{tail(90)}", "OPENAI_API_KEY=[SECRET]"),
    ("AKIA" + "IOSFODNN7EXAMPLE", "[SECRET]"),
    (f"ghp_{tail(36)}", "[SECRET]"),
    (f"github_pat_{tail(60)}", "[SECRET]"),
    ("xoxb" + "-123456789012-abcdefABCDEF", "[SECRET]"),
    (f"glpat-{tail(20)}", "[SECRET]"),
    (f"AIza{tail(35)}", "[SECRET]"),
    (f"sk_live_{tail(24)}", "[SECRET]"),
    (f"hf_{tail(34)}", "[SECRET]"),
    (f"use gl-mfrggzdf-{tail(43)}!", "use [SECRET]!"),
    (f"Authorization: Bearer {tail(30)}==", "Authorization: Bearer [SECRET]"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N", "[SECRET]"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIB\nAAKC==\n-----END RSA PRIVATE KEY-----\nhi", "[SECRET]\nhi"),
    ("-----BEGIN PRIVATE KEY-----\nMIIEpAIBAAKC cut off", "[SECRET]"),
]

BENIGN = [
    # llmgateway#3641: what another gateway's users had redacted or blocked
    '{"product_id": 3074185296}',
    "created_at 1755302400",
    "Item 4123456789012 is out of stock",
    "git revert a94a8fe5ccb19ba61c4c0873d391e987982fbbd3",
    "Order PO1234567 for part X12345",
    "Bump to version 1.2.3.4",
    "apiKey: YOUR_API_KEY_HERE_PLACEHOLDER",
    "This retry logic is redundant",
    # our own
    "3074185296",
    "1700000000 1700000000000 1700000000000000 1700000000000000000",
    "550e8400-e29b-41d4-a716-446655440000 12345678-1234-4234-8234-123456789012",
    "orders 1234, 12345, 123456, 1234567, 12345678, 123456789 and 1234567890",
    "$1,234,567.89 or 1.234.567,89 € or 1 234 567 kr or 0.4111111111111111",
    "2026-11-21, 21/11/2026, 21.11.2026, 11-21-26, 2026-11-21T06:09:00.123456Z, 06:09:00, 01-02-2024",
    "v1.2.3.4, release 10.20.30.40, pkg==2.31.0.6, section 1.2.3.4, OID 1.3.6.1.4.1.311",
    "the server listens on 127.0.0.1 and 0.0.0.0, mask 255.255.255.0, [::1]:8000 and ::",
    "std::vector<int> a::b; Fade::Add; aa:bb:cc:dd:ee:ff; 12:34:56",
    "4111 1111 1111 1112 fails Luhn; ISBN 978-3-16-148410-0; EAN 4006381333931",
    "GB82WEST12345698765433 fails mod 97; DE is a country; AB12 CDEF",
    "support@candidate, support:7, name@0123456789abcdef, pip install pkg@1.2.3, @scope/pkg",
    "sk-learn-contrib-is-a-package-name, bearer responsibilities, task-queue-worker-number-1",
    "-----BEGIN PUBLIC KEY-----\nMIIBIjAN\n-----END PUBLIC KEY-----",
    "chatcmpl-0193e4a1b2c34d5e8f90123456789abc",
    "call 12345678 times; iPhone 15 costs 1299; the phone weighs 171 grams",
    "[0.0123456789, -0.4567890123, 12.3456789]",
    "SSN-like 078-05-1120",
    "",
]

# fmt: off
REPEATED = [
    "a", "@", "a@", "a.", "1", "1 ", "12-", "0123 ", "a:", "1.", "gb12 ", "+1 ", "(", "eyJ", "eyJaaaaaaaa.", "sk-",
    "SG.", "bearer ", "gl-aaaa-", "_live_", "call me at ", "tel 1 ", "4111 ", " ", "-----BEGIN PRIVATE KEY-----\n",
]
# fmt: on


@pytest.mark.parametrize(("text", "wanted"), FOUND, ids=[text[:24] for text, _ in FOUND])
def test_what_is_personal_or_secret_is_replaced(text: str, wanted: str) -> None:
    assert redact(text).text == wanted


@pytest.mark.parametrize("text", BENIGN, ids=[text[:24] for text in BENIGN])
def test_what_is_neither_is_left_alone(text: str) -> None:
    assert redact(text).text == text
    assert redact(text).counts == {}


def test_it_says_how_many_of_each_kind_were_found() -> None:
    assert redact("a@b.io and c@d.io from 8.8.8.8").counts == {"EMAIL": 2, "IP": 1}


def test_what_is_redacted_stays_as_it_is() -> None:
    once = "\n".join(text for text, _ in FOUND[:-1])
    assert redact(redact(once).text).text == redact(once).text


def test_a_document_is_redacted_in_its_strings_only_and_not_in_place() -> None:
    document: dict[str, Any] = {"a@b.io": ["mail c@d.io", 4111111111111111, None, True, {"x": "8.8.8.8"}]}
    assert redact_json(document) == {"a@b.io": ["mail [EMAIL]", 4111111111111111, None, True, {"x": "[IP]"}]}
    assert document["a@b.io"][0] == "mail c@d.io"


def test_json_within_json_is_found_behind_escaped_line_breaks_and_still_parses() -> None:
    inner = orjson.dumps(
        {"note": "pay\n4111111111111111\nbob@example.org\n541-714-1388\n8.8.8.8\nfe80::1\nDE89370400440532013000"}
    ).decode()
    arguments = redact_json({"arguments": inner})["arguments"]
    assert orjson.loads(arguments) == {"note": "pay\n[CARD]\n[EMAIL]\n[PHONE]\n[IP]\n[IP]\n[IBAN]"}


@pytest.mark.slow
@pytest.mark.parametrize("unit", REPEATED)
def test_no_text_makes_it_slow(unit: str) -> None:
    text = (unit * 200_000)[:200_000]
    begin = time.process_time()
    redact(text)
    assert time.process_time() - begin < 1.5


def test_base64_is_left_alone() -> None:
    blob = base64.b64encode(bytes(i * 7919 % 251 for i in range(50_000))).decode()
    assert redact(blob).text == blob


@pytest.fixture(scope="module")
def people() -> list[dict[str, Any]]:
    if not PII.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must measure the redactor, but {PII} is missing.")
        pytest.skip(f"{PII} is missing")
    with gzip.open(PII) as file:
        texts: list[dict[str, Any]] = json.load(file)
    return texts


@pytest.mark.slow
def test_structured_recall_on_public_texts_is_at_least_95_percent(people: list[dict[str, Any]]) -> None:
    found: Counter[str] = Counter()
    there: Counter[str] = Counter()
    beyond: Counter[str] = Counter()
    for each in people:
        redacted = redact(each["full_text"])
        wanted: Counter[str] = Counter()
        for span in each["spans"]:
            if kind := KINDS.get(span["entity_type"]):
                wanted[kind] += 1
                found[kind] += span["entity_value"] not in redacted.text
        there += wanted
        beyond += Counter(redacted.counts) - wanted
    recall = {kind: found[kind] / there[kind] for kind in there}
    assert min(recall[kind] for kind in ("EMAIL", "IP", "IBAN", "CARD")) >= 0.95, recall
    assert recall["PHONE"] >= 0.90, recall
    assert beyond.total() <= 3, beyond


@pytest.mark.slow
def test_99_of_100_public_texts_take_less_than_2_ms(people: list[dict[str, Any]]) -> None:
    took = []
    for each in people:
        begin = time.process_time()
        redact(each["full_text"])
        took.append(time.process_time() - begin)
    assert sorted(took)[len(took) * 99 // 100] < 0.002
