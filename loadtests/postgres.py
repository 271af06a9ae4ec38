"""A real PostgreSQL of a measurement's own, that can be taken away and brought back."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Postgres:
    """One server on a unix socket in `folder`."""

    binaries: Path
    folder: Path
    account: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://graftline@/postgres?host={self.folder}"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        with (self.folder / "log").open("ab") as log:
            argv = [f"{self.binaries}/postgres", "-D", f"{self.folder}/data", "-c", "listen_addresses="]
            argv += ["-c", f"unix_socket_directories={self.folder}", "-c", "fsync=off"]
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=self.folder, **self.account)
        until = time.monotonic() + 30
        ready = [f"{self.binaries}/pg_isready", "-q", "-h", str(self.folder)]
        while subprocess.run(ready, check=False).returncode:
            if time.monotonic() > until:
                raise TimeoutError((self.folder / "log").read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        """Close every connection and end."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)
            self.process = None


@contextlib.contextmanager
def postgres() -> Iterator[Postgres | None]:
    """A running server, or None where no server is installed. Runs as another user when we are root."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    on_path = shutil.which("postgres")
    if not found and not on_path:
        yield None
        return
    binaries = Path(found[-1] if found else str(on_path)).resolve().parent
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        users = {entry.pw_name: entry for entry in pwd.getpwall()}
        entry = users.get("postgres") or users["nobody"]
        account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="graftline-pg-", dir="/tmp"))  # short: socket paths end at 107 bytes
    server = Postgres(binaries, folder, account)
    try:
        if account:
            os.chown(folder, account["user"], account["group"])
        argv = [f"{binaries}/initdb", "-D", f"{folder}/data", "-U", "graftline", "-A", "trust", "--no-sync"]
        subprocess.run(argv, check=True, capture_output=True, cwd=folder, **account)
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
