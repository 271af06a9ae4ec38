from __future__ import annotations

import re
from typing import Any

import pytest

from gateway.access.errors import BadKey
from gateway.access.keys import LIMIT_MAX, Key, Limits, Role, mint, verify

NOW = 1_800_000_000.0


def minted(**changes: Any) -> tuple[str, Key]:
    asked: dict[str, Any] = {"tenant": "acme", "name": "ci", "roles": ["user"], "now": NOW}
    return mint(**(asked | changes))


def test_a_secret_names_its_id_and_carries_256_random_bits() -> None:
    secret, key = minted()
    assert re.fullmatch(r"gl-[a-z2-7]{16}-[A-Za-z0-9_-]{43}", secret)
    assert secret.split("-")[1] == key.id


def test_no_two_keys_are_alike() -> None:
    secrets = {minted()[0] for _ in range(100)}
    assert len(secrets) == len({secret.split("-")[1] for secret in secrets}) == 100


def test_the_key_does_not_contain_its_secret() -> None:
    secret, key = minted()
    assert secret.split("-", 2)[2] not in repr(key)  # what is random may hold dashes itself
    assert secret.encode() not in key.digest


def test_only_the_whole_secret_verifies() -> None:
    secret, key = minted()
    assert verify(secret, key)
    assert verify(secret.encode(), key)
    for wrong in (secret[:-1], secret + "A", secret.upper(), minted()[0], "", "gl-", "\ud800"):
        assert not verify(wrong, key)


def test_the_same_randomness_makes_the_same_key() -> None:
    assert minted(randomness=bytes) == minted(randomness=bytes)


def test_everything_that_was_asked_for_is_in_the_key() -> None:
    _, key = minted(
        roles=[Role.OPERATOR, "user"],
        who="root",
        expires_at=NOW + 1,
        models=["support", "shop"],
        capture="off",
        limits=Limits(concurrent=2),
    )
    assert key.roles == {Role.USER, Role.OPERATOR}
    assert (key.created_at, key.created_by, key.expires_at) == (NOW, "root", NOW + 1)
    assert key.models == frozenset({"support", "shop"})
    assert (key.capture, key.limits) == ("off", Limits(concurrent=2))
    assert (key.revoked_at, key.index) == (None, 0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tenant": ""}, "tenant"),
        ({"tenant": "Acme Corp"}, "'Acme Corp'"),
        ({"tenant": "a" * 64}, "1 to 63"),
        ({"name": ""}, "name"),
        ({"name": " x"}, "no space"),
        ({"name": "a\nb"}, "printable"),
        ({"roles": []}, "none"),
        ({"roles": ["user", "root"]}, "'root'"),
        ({"expires_at": NOW}, "future"),
        ({"expires_at": float("nan")}, "nan"),
        ({"models": []}, "0 models"),
        ({"models": [""]}, "1 to 255"),
        ({"models": ["m"] * 257}, "257 models"),
        ({"capture": "some"}, "'some'"),
        ({"limits": Limits(requests_per_min=0)}, "requests_per_min is 0"),
        ({"limits": Limits(tokens_per_min=LIMIT_MAX + 1)}, "tokens_per_min"),
        ({"limits": Limits(concurrent=-1)}, "concurrent is -1"),
        ({"limits": Limits(token_budget=0)}, "token_budget"),
    ],
)
def test_a_bad_wish_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadKey, match=re.escape(said)) as caught:
        minted(**changes)
    assert len(caught.value.problems) == 1


def test_all_that_is_wrong_is_said_together() -> None:
    with pytest.raises(BadKey) as caught:
        minted(tenant="", name="", roles=[], capture="some", models=[], limits=Limits(concurrent=0), expires_at=0.0)
    assert len(caught.value.problems) == 7


@pytest.mark.parametrize(
    "limits",
    [Limits(requests_per_min=5), Limits(tokens_per_min=5), Limits(concurrent=5), Limits(token_budget=5)],
)
def test_limits_know_whether_they_limit_anything(limits: Limits) -> None:
    assert not limits.unlimited
    assert Limits().unlimited
