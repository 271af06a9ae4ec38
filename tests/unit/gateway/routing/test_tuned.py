"""Names of what jobs have trained: spelled, understood, and served like any other name of a version."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapters.lifecycle import State
from gateway.access.identify import Keyring
from gateway.access.keys import mint
from gateway.errors import UnknownModel
from gateway.routing.resolve import family, resolve
from gateway.routing.snapshot import Snapshot, build
from gateway.routing.tuned import adapter_name, adapter_of, of_version, spelled
from tests.unit.gateway.rows import alias, version

JOB = "ftjob-1a2b3c"
MADE = replace(version(3), origin="training", created_by=f"acme/{JOB}")
NAME = "ft:tidewell:acme:support:1a2b3c"


def snapshot(*versions: object, aliases: object = ()) -> Snapshot:
    return build(
        revision=7,
        base_name="tidewell",
        base_created=1,
        keyring=Keyring([]),
        versions=versions,  # type: ignore[arg-type]
        aliases=aliases,  # type: ignore[arg-type]
        residents={},
    )


def test_a_name_holds_base_tenant_suffix_and_job() -> None:
    assert spelled("tidewell", "acme", "support", JOB) == NAME
    assert of_version("tidewell", MADE) == NAME


def test_a_job_without_a_suffix_leaves_it_empty() -> None:
    name = adapter_name("", JOB)
    assert name == "ft-1a2b3c"
    assert spelled("tidewell", "acme", name, JOB) == "ft:tidewell:acme::1a2b3c"
    assert adapter_of("ft:tidewell:acme::1a2b3c") == name
    assert adapter_name("kind", JOB) == "kind"


@pytest.mark.parametrize("made", [version(3), replace(MADE, origin="upload"), replace(MADE, created_by="acme/ann")])
def test_what_no_job_made_has_no_such_name(made: object) -> None:
    assert of_version("tidewell", made) == ""  # type: ignore[arg-type]


def test_its_adapter_is_seen_by_its_spelling() -> None:
    assert family(NAME) == "support"
    assert family("ft:a:b:acme:support:1a2b3c") == "support"  # a base's name may hold a colon
    for model in ("ft:7", "ft", "ft@live", "ft:support:7", "xft:tidewell:acme:support:1"):
        assert adapter_of(model) == ""
    assert family("ft:7") == "ft"


def test_it_is_served_once_its_version_is_verified_and_listed() -> None:
    found = snapshot(MADE, aliases=[alias(3)])
    assert found.targets[NAME] is found.targets["support:3"]
    assert NAME in [row.id for row in found.listed]
    assert NAME not in snapshot(replace(MADE, state=State.PROBED)).targets


def test_a_key_may_use_it_that_may_use_its_adapter() -> None:
    found = snapshot(MADE)
    for models, allowed in ((None, True), (["support"], True), ([NAME], True), (["other", "ft"], False)):
        key = mint(tenant="t", name="k", roles=["user"], now=1.0, models=models)[1]
        if allowed:
            assert resolve(found, key, NAME).adapter == "support:3"
        else:
            with pytest.raises(UnknownModel):
                resolve(found, key, NAME)
    with pytest.raises(UnknownModel):
        resolve(found, mint(tenant="t", name="k", roles=["user"], now=1.0)[1], NAME.replace("acme", "other"))
