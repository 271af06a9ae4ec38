"""A real PostgreSQL for the contract suites: one a session, run by an unprivileged user on a socket of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import psycopg
import pytest
import sqlalchemy as sa

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a server that lives as long as the session. Tests share its one database; see `empty_postgres_url`."""
    binaries = _binaries()
    if binaries is None:
        _unavailable("no PostgreSQL server: neither `initdb` in PATH nor /usr/lib/postgresql/*/bin/initdb")
    account = _account()
    folder = Path(tempfile.mkdtemp(prefix="graftline-pg-", dir="/tmp"))  # short: socket paths end at 107 bytes
    try:
        yield from _serve(binaries, folder, account)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def empty_postgres_url(postgres_url: str) -> str:
    """The same server with nothing in it. Engines that earlier tests left open are cut off first."""
    with psycopg.connect(_plain(postgres_url), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return postgres_url


def _serve(binaries: Path, folder: Path, account: dict[str, Any]) -> Iterator[str]:
    if account:
        shutil.chown(folder, account["user"], account["group"])
    initdb = [f"{binaries}/initdb", "-D", f"{folder}/data", "-U", "graftline", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(initdb, cwd=folder, check=True, capture_output=True, timeout=START_TIMEOUT_S, **account)
    fast = ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=32MB", "-c", "max_connections=60"]
    apart = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [f"{binaries}/postgres", "-D", f"{folder}/data", *fast, *apart],
            cwd=folder,
            stdout=log,
            stderr=log,
            **account,
        )
    try:
        url = f"postgresql+psycopg://graftline@/postgres?host={folder}"
        _wait_until_ready(url, server, folder / "log")
        yield url
    finally:
        server.send_signal(signal.SIGINT)  # "fast": connections are closed, nothing is waited for
        try:
            server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            psycopg.connect(_plain(url), connect_timeout=2).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"PostgreSQL did not start: {log.read_text(errors='replace')[-2000:]}")


def _binaries() -> Path | None:
    """The folder with `initdb` and `postgres`, the newest version where the system keeps several."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    folders += sorted(versions, key=lambda each: float(each.parent.name), reverse=True)
    return next((each for each in folders if (each / "initdb").exists() and (each / "postgres").exists()), None)


def _account() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    accounts = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = accounts.get("postgres") or accounts.get("nobody")
    if entry is None:
        _unavailable("running as root, and there is neither a `postgres` nor a `nobody` account to run PostgreSQL as")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _unavailable(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must run the PostgreSQL contracts, but {reason}.")
    pytest.skip(reason)


def _plain(url: str) -> str:
    return sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
