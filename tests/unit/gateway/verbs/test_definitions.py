"""What `experiments open` understands: files and options, and every reason why it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapters.experiments.errors import BadExperiment
from gateway.api.control.experiments import defined
from gateway.verbs.definitions import asked, by_options, read
from tests.unit.gateway.experimenting.hall import wish

YAML = """
name: support
arms: [{name: old, number: 1}, {name: new, number: 2}]
metrics:
  - {name: thumbs_up_rate, role: primary, window_s: 1}
  - {name: error_rate, role: guardrail, margin: 0.3, window_s: 1}
ramp: [{share: 5000, at_least_s: 0}]
horizon: 400
"""
JSON = """{"name": "support", "arms": [{"name": "old", "number": 1}, {"name": "new", "number": 2}], "horizon": 400,
"metrics": [{"name": "thumbs_up_rate", "role": "primary", "window_s": 1.0},
{"name": "error_rate", "role": "guardrail", "margin": 0.3, "window_s": 1}],
"ramp": [{"share": 5000, "at_least_s": 0}]}"""
TOML = """
name = "support"
arms = [{name = "old", number = 1}, {name = "new", number = 2}]
metrics = [{name = "thumbs_up_rate", role = "primary", window_s = 1},
  {name = "error_rate", role = "guardrail", margin = 0.3, window_s = 1}]
ramp = [{share = 5000, at_least_s = 0}]
horizon = 400
"""


@pytest.mark.parametrize(("suffix", "text"), [(".yaml", YAML), (".yml", YAML), (".json", JSON), (".toml", TOML)])
def test_a_file_says_what_the_route_would_be_sent(suffix: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / f"experiment{suffix}"
    file.write_text(text)
    assert defined(asked(read(file))) == wish()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.yaml", b"name: [support"),
        ("a.yaml", b"\xff\xfe\x00"),
        ("a.yaml", b"!!python/object/apply:os.system ['true']"),
        ("a.json", b"{"),
        ("a.json", b"[" * 100_000),
        ("a.toml", b"name = "),
        ("a.toml", b"\xff"),
        ("a.yaml", b" " * (1 << 20) + b" "),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadExperiment, match=name):
        read(tmp_path / name)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadExperiment, match="No such file"):
        read(tmp_path / "none.yaml")


@pytest.mark.parametrize("found", [None, [], "text", {}, {"name": 7, "arms": [], "metrics": []}])
def test_what_has_not_the_form_is_refused_with_its_fields(found: Any) -> None:
    with pytest.raises(BadExperiment):
        asked(found)


def test_every_field_at_fault_is_named_at_once() -> None:
    with pytest.raises(BadExperiment) as refusal:
        asked({"name": "support", "arms": [{"name": "old", "number": "1"}], "metrics": [], "colour": 1, "unit": 3})
    said = [reason.partition(":")[0] for reason in refusal.value.reasons]
    assert sorted(said) == ["arms.0.number", "colour", "unit"]


def test_options_say_the_same() -> None:
    found = by_options(
        name="support",
        alias="live",
        arms=["old=1", "new=2"],
        primary="thumbs_up_rate",
        guardrails=["error_rate=0.02"],
        unit="conversation",
        share=5000,
        ask=True,
        note="hm",
    )
    made = defined(found)
    assert [(arm.name, arm.number) for arm in made.arms] == [("old", 1), ("new", 2)]
    assert [(metric.name, metric.role, metric.margin) for metric in made.metrics] == [
        ("thumbs_up_rate", "primary", None),
        ("error_rate", "guardrail", 0.02),
    ]
    assert (made.unit, made.ask_before, made.note) == ("conversation", ("promote",), "hm")
    assert made.ramp is not None
    assert [step.share for step in made.ramp] == [5000]


def test_what_options_lack_is_said_at_once() -> None:
    with pytest.raises(BadExperiment) as refusal:
        by_options(
            name="", alias="live", arms=["old", "new=x"], primary="", guardrails=["error_rate"], unit="user",
            share=None, ask=False, note="",
        )  # fmt: skip
    assert len(refusal.value.reasons) == 5
