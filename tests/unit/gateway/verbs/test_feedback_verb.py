"""`graftline feedback` where it needs no gateway."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.errors import BadField
from gateway.verbs.feedback import app


def test_a_dry_run_checks_and_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRAFTLINE_HOME", str(tmp_path / "home"))
    said = ["send", "chatcmpl-1", "--kind", "thumbs", "--value", "-1", "--dry-run"]
    done = CliRunner().invoke(app, said)
    assert (done.exit_code, list(tmp_path.iterdir())) == (0, [])
    assert "would be kept: thumbs of chatcmpl-1" in done.output


@pytest.mark.parametrize(
    "said",
    [
        ["send", "chatcmpl-1", "--kind", "thumbs", "--value", "nan", "--dry-run"],
        ["send", "chatcmpl-1", "--kind", "scalar", "--value", "1", "--dry-run"],
        ["send", "chatcmpl-1", "--kind", "thumbs", "--value", "1", "--url", "http://127.0.0.1:9"],
    ],
    ids=str,
)
def test_what_cannot_be_is_said_before_anything_is_done(said: list[str]) -> None:
    assert isinstance(CliRunner().invoke(app, said).exception, BadField)
