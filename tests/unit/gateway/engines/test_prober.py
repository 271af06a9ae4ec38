"""Which prober an installation gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.control import Base
from gateway.engines import prober
from gateway.engines.prober import make_prober
from gateway.engines.quarantine import QuarantineProber
from gateway.settings import Settings, SettingsError
from training.base import PATH
from training.probe.client import WarmProber

BASE = Base(name="tidewell", folder=PATH, digest="sha256:00", created=0)


def settings(home: Path, **values: str) -> Settings:
    return Settings.model_validate({"home": home, **values})


def test_off_means_none(tmp_path: Path) -> None:
    assert make_prober(settings(tmp_path, probe="off", probe_url="http://q:1"), BASE) is None


def test_a_url_wins_whether_or_not_there_is_torch(tmp_path: Path) -> None:
    assert isinstance(make_prober(settings(tmp_path, probe_url="http://q:1"), BASE), QuarantineProber)


def test_with_the_training_extra_it_is_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober, "find_spec", lambda name: object())
    assert isinstance(make_prober(settings(tmp_path), BASE), WarmProber)


def test_without_it_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober, "find_spec", lambda name: None)
    assert make_prober(settings(tmp_path), BASE) is None


def test_a_url_that_is_none_is_a_setting_to_mend(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="probe_url"):
        make_prober(settings(tmp_path, probe_url="ftp://q"), BASE)


@pytest.mark.parametrize("config", ["", "[]", "{}", '{"vocab_size": "many"}'])
def test_a_base_without_a_vocabulary_is_a_setting_to_mend(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    odd = Base(name="odd", folder=tmp_path, digest="sha256:00", created=0)
    with pytest.raises(SettingsError, match="vocab_size"):
        make_prober(settings(tmp_path, probe_url="http://q:1"), odd)


def test_a_base_that_also_sees_keeps_its_vocabulary_one_level_down(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"text_config": {"vocab_size": 9000}}')
    seeing = Base(name="seeing", folder=tmp_path, digest="sha256:00", created=0)
    assert make_prober(settings(tmp_path, probe_url="http://q:1"), seeing) is not None


@pytest.mark.slow
def test_neither_the_gateway_nor_the_client_imports_torch() -> None:
    code = "import sys, gateway.engines.prober, training.probe.client; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
