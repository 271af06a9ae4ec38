from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.access.errors import Forbidden, Unauthenticated
from gateway.access.identify import Keyring, allows, require, token
from gateway.access.keys import Key, Role, mint

NOW = 1_800_000_000.0
SECRET, KEY = mint(tenant="acme", name="ci", roles=["user"], now=NOW, expires_at=NOW + 60)
OTHER_SECRET, OTHER = mint(tenant="acme", name="old", roles=["user"], now=NOW)
REVOKED = replace(OTHER, revoked_at=NOW)
RING = Keyring([KEY, REVOKED])


def refusal(bearer: bytes | str | None, now: float = NOW) -> str:
    with pytest.raises(Unauthenticated) as caught:
        RING.find(bearer, now)
    assert caught.value.code == "invalid_api_key"
    return str(caught.value)


@pytest.mark.parametrize("bearer", [SECRET, SECRET.encode()], ids=["text", "bytes"])  # secrets differ by process
def test_a_secret_finds_its_key(bearer: bytes | str) -> None:
    assert RING.find(bearer, NOW) is KEY
    assert len(RING) == 2


@pytest.mark.parametrize("bearer", [None, "", b""])
def test_a_missing_key_is_asked_for(bearer: bytes | str | None) -> None:
    assert "No API key was sent" in refusal(bearer)


def test_revoked_unknown_and_malformed_keys_are_told_the_same() -> None:
    stranger, _ = mint(tenant="acme", name="x", roles=["user"], now=NOW)
    same_id = f"gl-{KEY.id}-{'A' * 43}"
    said = {refusal(bearer) for bearer in (OTHER_SECRET, stranger, same_id, "gl-", "x", b"\xff\x00", "é\ud800")}
    assert len(said) == 1


def test_an_overlong_key_is_refused_before_it_is_hashed() -> None:
    assert refusal(SECRET + "A" * 10_000_000) == refusal("x")


def test_a_key_ends_at_the_second_of_its_expiry() -> None:
    assert RING.find(SECRET, NOW + 59.999) is KEY
    assert "expired" in refusal(SECRET, NOW + 60)


def test_expiry_is_told_only_to_who_has_the_secret() -> None:
    assert "expired" not in refusal(f"gl-{KEY.id}-{'A' * 43}", NOW + 60)


def test_no_secret_is_in_what_a_caller_is_told() -> None:
    assert SECRET not in refusal(SECRET, NOW + 60)
    assert OTHER_SECRET not in refusal(OTHER_SECRET)


@pytest.mark.parametrize("header", [b"Bearer abc", b"bearer abc", b"BEARER   abc  "])
def test_a_bearer_header_holds_a_token(header: bytes) -> None:
    assert token(header) == b"abc"


@pytest.mark.parametrize("header", [None, b"", b"Bearer", b"Bearer ", b"Basic abc", b"abc"])
def test_any_other_header_holds_none(header: bytes | None) -> None:
    with pytest.raises(Unauthenticated, match="No API key"):
        token(header)


def test_a_key_for_all_models_allows_each() -> None:
    assert allows(KEY, "support:7", "support")


def test_a_key_for_named_models_allows_those_alone() -> None:
    key = replace(KEY, models=frozenset({"support", "shop@candidate"}))
    assert allows(key, "support", "support")
    assert allows(key, "support:7", "support")
    assert allows(key, "shop@candidate", "shop")
    assert not allows(key, "shop", "shop")
    assert not allows(key, "base", "base")


def with_roles(*roles: Role) -> Key:
    return replace(KEY, roles=frozenset(roles))


def test_any_of_the_roles_asked_for_is_enough() -> None:
    require(with_roles(Role.ENGINEER), Role.ENGINEER, Role.OPERATOR)
    require(with_roles(Role.USER, Role.OPERATOR), Role.ENGINEER, Role.OPERATOR)


def test_roles_do_not_include_one_another() -> None:
    with pytest.raises(Forbidden, match="needs the role user; the key has operator"):
        require(with_roles(Role.OPERATOR), Role.USER)
    with pytest.raises(Forbidden, match="engineer or operator; the key has none"):
        require(with_roles(), Role.ENGINEER, Role.OPERATOR)
