"""What model names mean at one revision, for one key."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.lifecycle import State
from gateway.access.identify import Keyring
from gateway.access.keys import Key, mint
from gateway.errors import UnknownModel
from gateway.routing.resolve import family, resolve
from gateway.routing.snapshot import Snapshot, build
from tests.unit.gateway.rows import alias, version


def snapshot(*versions: Any, aliases: Any = ()) -> Snapshot:
    return build(
        revision=7,
        base_name="tidewell",
        base_created=1,
        keyring=Keyring([]),
        versions=versions,
        aliases=aliases,
        residents={},
    )


def key(*models: str) -> Key:
    return mint(tenant="t", name="k", roles=["user"], now=1.0, models=models or None)[1]


def test_the_base_is_always_there() -> None:
    found = snapshot()
    assert list(found.targets) == ["tidewell"]
    assert found.base.resident == ""
    assert found.base.label == "tidewell"
    assert [row.id for row in found.listed] == ["tidewell"]


def test_a_name_its_alias_and_its_number_mean_the_same_version() -> None:
    found = snapshot(version(1), version(2), aliases=[alias(2), alias(1, to="candidate")])
    assert set(found.targets) == {"tidewell", "support", "support@live", "support@candidate", "support:1", "support:2"}
    live = found.targets["support"]
    assert live is found.targets["support@live"]
    assert live.adapter == "support:2"
    assert live.engine_name == found.targets["support:2"].engine_name == "support@0000000000000002"
    assert live.label == f"support:2@{live.digest}"
    assert found.targets["support@candidate"].adapter == "support:1"
    assert [row.id for row in found.listed] == ["tidewell", "support", "support@candidate"]


@pytest.mark.parametrize("state", [s for s in State if s is not State.VERIFIED])
def test_only_verified_versions_can_be_asked_for(state: State) -> None:
    found = snapshot(version(1, state), aliases=[alias(1)])
    assert list(found.targets) == ["tidewell"]
    assert not found.wanted


def test_an_alias_remembers_where_it_pointed_if_that_can_still_serve() -> None:
    previous = snapshot(version(1), version(2), aliases=[alias(2, previous=1)]).targets["support"].previous
    assert previous is not None
    assert previous.adapter == "support:1"
    retired = snapshot(version(1, State.RETIRED), version(2), aliases=[alias(2, previous=1)])
    assert retired.targets["support"].previous is None


def test_unknown_and_not_allowed_are_told_in_the_same_words() -> None:
    found = snapshot(version(1), aliases=[alias(1)])
    assert resolve(found, key(), "support").adapter == "support:1"
    with pytest.raises(UnknownModel) as unknown:
        resolve(found, key(), "nobody")
    with pytest.raises(UnknownModel) as hidden:
        resolve(found, key("other"), "support")
    assert str(unknown.value).replace("nobody", "") == str(hidden.value).replace("support", "")


def test_a_family_allows_its_members_and_a_member_only_itself() -> None:
    found = snapshot(version(1), aliases=[alias(1), alias(1, to="candidate")])
    for model in ("support", "support@candidate", "support:1"):
        assert resolve(found, key("support"), model)
    assert resolve(found, key("support@candidate"), "support@candidate")
    for model in ("support", "support:1", "tidewell"):
        with pytest.raises(UnknownModel):
            resolve(found, key("support@candidate"), model)


@pytest.mark.parametrize("model", ["support", "support@candidate", "support:7", "support@a:1"])
def test_a_model_belongs_to_its_family(model: str) -> None:
    assert family(model) == "support"
