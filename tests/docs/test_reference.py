"""Documentation that is generated stays generated, and what must be documented is."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from gateway.api import errors
from gateway.settings import Settings
from gateway.verbs.reference import page
from monitoring.telemetry.names import METRICS

ROOT = Path(__file__).parents[2]


def test_the_reference_page_is_what_the_code_says() -> None:
    assert (ROOT / "deploy" / "REFERENCE.md").read_text() == page(), "run `make reference`"


def test_every_setting_and_metric_says_what_it_means() -> None:
    for model in (Settings, type(Settings().engine)):
        assert all(field.description for field in model.model_fields.values())
    assert all(metric.help for metric in METRICS)


def test_every_error_has_a_status_of_its_own_or_its_parents() -> None:
    for root in errors.OURS:
        for cls in (root, *root.__subclasses__()):
            assert any(known in errors.STATUS for known in cls.__mro__), cls


def test_every_alert_has_its_runbook_and_knows_its_metric() -> None:
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())
    alerts_of, _, _ = (ROOT / "deploy/RUNBOOKS.md").read_text().partition("\n# Procedures\n")
    runbooks = re.findall(r"^## (.+)$", alerts_of, re.MULTILINE)
    names = {metric.name for metric in METRICS}
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert [rule["alert"] for rule in alerts] == runbooks
    for rule in alerts:
        assert rule["annotations"]["runbook"].endswith("#" + rule["alert"].lower())
        assert set(re.findall(r"\b(?:graftline|gen_ai)_\w+", rule["expr"])) <= names


def test_every_make_target_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"):
        used = set(re.findall(r"`make ([a-z-]+)`|^\s+make ([a-z-]+)", (ROOT / document).read_text(), re.MULTILINE))
        assert {a or b for a, b in used} <= targets, document
