"""The hostile corpus against the static checks: each is refused for its own reason, or hides from them as said."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from adapters.artifacts import unpacked
from adapters.checks.identity import identified
from adapters.checks.modules import BaseModules
from adapters.checks.static import check
from adapters.errors import AdapterError, BadName, Rejected
from adapters.limits import Limits
from adapters.names import check_name
from loadtests.corpus.__main__ import NAMES, write

pytestmark = pytest.mark.slow

BASE = Path(__file__).parents[3] / "training" / "base" / "tidewell"
LIMITS = Limits(bytes_max=64 << 20)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hostile") / "corpus"
    write(BASE, out)
    return out


@pytest.fixture(scope="module")
def rows(corpus: Path) -> list[dict[str, Any]]:
    found = json.loads((corpus / "manifest.json").read_text())
    assert isinstance(found, list)
    return found


@pytest.fixture(scope="module")
def base() -> BaseModules:
    return BaseModules.read(BASE, identified(BASE, names=("tidewell",), digest="sha256:" + "1" * 64))


def codes(path: Path, base: BaseModules, scratch: Path) -> set[str]:
    """Why it is refused; nothing when it is not."""
    try:
        if path.is_file():
            with unpacked(path, LIMITS, scratch=scratch) as folder:
                check(folder, base, LIMITS)
        else:
            check(path, base, LIMITS)
    except Rejected as error:
        return {reason.code for reason in error.reasons}
    except AdapterError as error:
        return {error.code}
    return set()


def test_there_are_at_least_sixty_of_twenty_five_kinds(rows: list[dict[str, Any]]) -> None:
    assert len(rows) >= 60
    assert len({row["kind"] for row in rows}) >= 25
    assert max(Counter(row["name"] for row in rows).values()) == 1


def test_what_files_give_away_is_refused_for_its_reason(
    corpus: Path, rows: list[dict[str, Any]], base: BaseModules, tmp_path: Path
) -> None:
    missed = {}
    for row in rows:
        found = codes(corpus / row["path"], base, tmp_path)
        if row["stage"] == "static" and not found.intersection(row["codes"]):
            missed[row["name"]] = (row["codes"], found)
    assert not missed
    assert list(tmp_path.iterdir()) == []


def test_what_only_a_forward_gives_away_passes_here(
    corpus: Path, rows: list[dict[str, Any]], base: BaseModules, tmp_path: Path
) -> None:
    """Otherwise the probe and the tripwire would not be tried by it."""
    hidden = [row for row in rows if row["stage"] != "static"]
    assert {row["stage"] for row in hidden} == {"probe", "tripwire"}
    assert {row["name"]: codes(corpus / row["path"], base, tmp_path) for row in hidden} == {
        row["name"]: set() for row in hidden
    }


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:20])
def test_names_that_vllm_takes_and_nobody_may_have(name: str) -> None:
    with pytest.raises(BadName):
        check_name(name)
