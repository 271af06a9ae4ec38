"""What every store of keys does: in memory, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.access import sql
from gateway.access.errors import BadKey, KeyNotFound
from gateway.access.identify import Keyring
from gateway.access.keys import Key, Limits, Role, mint
from gateway.access.store import MemoryStore, Store
from monitoring.database import connect, reading, revision

NOW = 1_800_000_000.0


@dataclass(frozen=True)
class House:
    """A store, and the revision that gateways watch."""

    store: Store
    revision: Callable[[], int]


def on(url: str) -> Iterator[House]:
    engine = connect(url)
    store = sql.SqlStore(engine)

    def seen() -> int:
        with reading(engine).begin() as connection:
            return revision(connection)

    with engine.begin() as connection:
        connection.execute(sa.delete(sql.KEYS))
    yield House(store, seen)
    engine.dispose()


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.slow])])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    if request.param == "memory":
        memory = MemoryStore()
        yield House(memory, lambda: memory.revision)
    elif request.param == "sqlite":
        yield from on(f"sqlite:///{tmp_path / 'control.db'}")
    else:
        yield from on(request.getfixturevalue("postgres_url"))


def minted(tenant: str = "acme", name: str = "ci") -> Key:
    return mint(tenant=tenant, name=name, roles=[Role.USER], now=NOW)[1]


def test_a_key_comes_back_as_it_went_in_with_a_row_of_its_own(house: House) -> None:
    _, key = mint(
        tenant="acme",
        name="Zoë's key",
        roles=list(Role),
        now=NOW + 0.123456,
        who="root",
        expires_at=NOW + 60.5,
        models=["support", "shop@candidate"],
        capture="metadata",
        limits=Limits(requests_per_min=1, tokens_per_min=10**15, concurrent=3, token_budget=10**14),
    )
    stored = house.store.insert(key)
    assert stored.index >= 1
    assert replace(stored, index=0) == key
    assert house.store.get(key.id) == stored


def test_what_is_not_set_comes_back_unset(house: House) -> None:
    stored = house.store.insert(minted())
    assert (stored.expires_at, stored.revoked_at, stored.models, stored.limits) == (None, None, None, Limits())
    assert house.store.get(stored.id).limits.unlimited


def test_a_stored_key_is_found_by_its_secret(house: House) -> None:
    secret, key = mint(tenant="acme", name="ci", roles=["user"], now=NOW)
    stored = house.store.insert(key)
    assert Keyring(house.store.list()).find(secret, NOW) == stored


def test_keys_are_listed_oldest_first_of_one_tenant_or_of_all(house: House) -> None:
    keys = [house.store.insert(minted(tenant)) for tenant in ("acme", "beta", "acme")]
    assert list(house.store.list()) == keys
    assert list(house.store.list("acme")) == [keys[0], keys[2]]
    assert list(house.store.list("gamma")) == []


def test_rows_of_the_ledger_are_not_shared(house: House) -> None:
    assert len({house.store.insert(minted()).index for _ in range(20)}) == 20


def test_an_id_is_taken_once(house: House) -> None:
    key = house.store.insert(minted())
    with pytest.raises(BadKey, match=key.id):
        house.store.insert(key)
    assert list(house.store.list()) == [key]


@pytest.mark.parametrize("key_id", ["absent", "", "a\0b", "\ud800", "é", "x' OR 1=1 --", "x" * 10_000])
def test_a_key_that_is_not_there_is_not_found(house: House, key_id: str) -> None:
    with pytest.raises(KeyNotFound):
        house.store.get(key_id)
    with pytest.raises(KeyNotFound):
        house.store.revoke(key_id, who="root", now=NOW)


def test_a_revoked_key_says_when_and_by_whom(house: House) -> None:
    key = house.store.insert(minted())
    other = house.store.insert(minted())
    revoked = house.store.revoke(key.id, who="root", now=NOW + 5)
    assert revoked == replace(key, revoked_at=NOW + 5, revoked_by="root")
    assert list(house.store.list()) == [revoked, other]


def test_a_key_is_revoked_once(house: House) -> None:
    key = house.store.insert(minted())
    first = house.store.revoke(key.id, who="root", now=NOW + 5)
    before = house.revision()
    assert house.store.revoke(key.id, who="else", now=NOW + 9) == first
    assert house.revision() == before


def test_gateways_are_told_of_every_change_and_of_nothing_else(house: House) -> None:
    before = house.revision()
    key = house.store.insert(minted())
    assert house.revision() == before + 1
    house.store.get(key.id)
    house.store.list()
    with pytest.raises(BadKey):
        house.store.insert(key)
    with pytest.raises(KeyNotFound):
        house.store.revoke("absent", who="root", now=NOW)
    assert house.revision() == before + 1
    house.store.revoke(key.id, who="root", now=NOW)
    assert house.revision() == before + 2


def test_two_processes_may_open_a_fresh_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'control.db'}"
    first, second = (sql.SqlStore(connect(url)) for _ in range(2))
    key = first.insert(minted())
    assert list(second.list()) == [key]


def test_the_row_of_a_deleted_key_is_never_given_again(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'control.db'}")
    store = sql.SqlStore(engine)
    gone = store.insert(minted())
    with engine.begin() as connection:
        connection.execute(sa.delete(sql.KEYS))
    assert store.insert(minted()).index > gone.index
