"""`graftline evaluate` on a running installation; the scripted engine says its model and what it heard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.houses import House
from tests.e2e.verbs import verb

pytestmark = pytest.mark.slow

WANTED = """
usual: false
suites:
  - name: facts
    source: "tidewell:facts"
    role: forgetting
    rows_max: 20
    measures: [right, named, answered]
    checks:
      - {name: named, regex: "^evaluated"}
"""


def test_a_version_is_held_against_the_base_and_the_live_one(house: House, tmp_path: Path) -> None:
    for number in (1, 2):
        house.register("evaluated", tmp_path / str(number), seed=number)
    (tmp_path / "wanted.yaml").write_text(WANTED)
    files = ["--plan", str(tmp_path / "wanted.yaml"), "--out", str(tmp_path / "evaluation.json")]
    done = verb({**house.running.env, "COLUMNS": "200"}, "evaluate", "evaluated:2", *files)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "facts.named" in done.stdout
    evaluation = json.loads((tmp_path / "evaluation.json").read_bytes())
    named = {each["subject"]: each for each in evaluation["measured"] if each["name"] == "facts.named"}
    assert {subject: each["value"] for subject, each in named.items()} == {"candidate": 1.0, "base": 0.0, "live": 1.0}
    apart = {each["versus"]: each["value"] for each in named["candidate"]["versus"]}
    assert apart == {"base": 1.0, "live": 0.0}
    assert evaluation["models"]["candidate"] != evaluation["models"]["live"]


def test_what_no_engine_holds_is_said_in_words(house: House) -> None:
    done = verb(house.running.env, "evaluate", "nobody:1")
    assert done.returncode == 1
    assert done.stdout.startswith("error (adapter_not_found)"), done.stdout + done.stderr
