"""What every store of files promises: in memory, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from monitoring.database import connect
from training.files import sql
from training.files.errors import FileNotFound, FilesUnavailable
from training.files.store import Files, MemoryFiles
from training.files.values import File

NOW = 1_800_000_000.0


def file(number: int, *, tenant: str = "acme", at: float | None = None) -> File:
    return File(
        id=f"file-{number:024d}",
        tenant=tenant,
        owner=f"{tenant}/ann",
        created_at=NOW + number if at is None else at,
        filename="süß 🙂.jsonl",
        purpose="fine-tune" if number % 2 else "evals",
        bytes=10 * number,
        digest="sha256:" + "0" * 64,
        state="error",
        details="line 3: not JSON",
        container="csv",
        kind="dpo",
        rows=number,
        expires_at=NOW + 3600.5,
    )


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Files]:
    if request.param == "memory":
        yield MemoryFiles()
        return
    url = f"sqlite:///{tmp_path}/control.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    engine = connect(url)
    made = sql.SqlFiles(engine)
    with engine.begin() as connection:
        connection.execute(sa.delete(sql.FILES))
    yield made
    engine.dispose()


def test_a_file_is_read_back_whole_and_a_known_one_stays_as_it_is(store: Files) -> None:
    assert store.add(file(1)) == file(1)
    assert store.add(replace(file(1), filename="other")) == file(1)
    assert store.get("acme", file(1).id) == file(1)


def test_another_tenant_s_file_is_as_unknown_as_none(store: Files) -> None:
    store.add(file(1))
    for tenant, id_ in (("other", file(1).id), ("acme", file(2).id)):
        with pytest.raises(FileNotFound):
            store.get(tenant, id_)
        with pytest.raises(FileNotFound):
            store.remove(tenant, id_)
        with pytest.raises(FileNotFound):
            store.list(tenant, after=id_)
    assert store.list("other") == ()
    assert store.total("other") == 0
    assert store.get("acme", file(1).id) == file(1)


def test_lists_go_both_ways_in_pages_and_by_purpose(store: Files) -> None:
    together = file(4, at=NOW + 3)  # the same moment as the third: the id decides
    for each in (file(1), file(2), file(3), together, file(5, tenant="other")):
        store.add(each)
    assert store.list("acme") == (together, file(3), file(2), file(1))
    assert store.list("acme", newest_first=False) == (file(1), file(2), file(3), together)
    assert store.list("acme", limit=2) == (together, file(3))
    assert store.list("acme", after=together.id, limit=2) == (file(3), file(2))
    assert store.list("acme", after=file(3).id, newest_first=False) == (together,)
    assert store.list("acme", purpose="fine-tune") == (file(3), file(1))
    assert store.list("acme", purpose="evals", after=together.id) == (file(2),)
    assert store.list("acme", after=file(1).id) == ()


def test_what_is_removed_is_gone_and_counts_no_more(store: Files) -> None:
    for each in (file(1), file(2), file(3, tenant="other")):
        store.add(each)
    assert store.total("acme") == 30
    assert store.all() == (file(1), file(2), file(3, tenant="other"))
    assert store.remove("acme", file(1).id) == file(1)
    assert store.total("acme") == 20
    with pytest.raises(FileNotFound):
        store.remove("acme", file(1).id)


def test_a_database_that_is_away_is_told_in_our_words(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/control.db")
    store = sql.SqlFiles(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE files"))
    with pytest.raises(FilesUnavailable, match="did not answer"):
        store.get("acme", "file-1")
    with pytest.raises(FilesUnavailable):
        store.add(file(1))
    engine.dispose()
