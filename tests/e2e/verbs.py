"""Verbs of the CLI for tests that ask many of them: each in a process of its own, forked from this one.

What a verb does, reads and prints is the same; only Python's start and its imports are left out. That the
command starts as people type it is for `test_cli`, the README's commands and the tests on a whole installation.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from gateway.cli import GROUPS, VERBS, main
from gateway.verbs import console

for _module in (*(module for module, _ in GROUPS.values()), *VERBS.values()):
    importlib.import_module(_module)  # here once, and not in each fork

TIMEOUT_S = 120.0
_LOOK_S = 0.01


def verb(env: Mapping[str, str], *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`graftline ARGS` in this environment, to its end."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: this process has threads
            child = os.fork()
        if child == 0:
            _become(env, args, cwd, out, err)
        code = _ended(child)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(args, code, out.read().decode(), err.read().decode())


def graftline(home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """The same, on what is in `home`."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GRAFTLINE_")}
    return verb({**outside, "GRAFTLINE_HOME": str(home), "COLUMNS": "200"}, *args, cwd=home)


def _become(env: Mapping[str, str], args: tuple[str, ...], cwd: Path | None, out: IO[bytes], err: IO[bytes]) -> None:
    """In the fork: the verb, and the end of the process. Nothing of it may run on into pytest."""
    gc.freeze()  # to look through what is pytest's would copy it, for most of a second
    code: object = 1
    try:
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        os.environ.clear()
        os.environ.update(env)
        os.chdir(cwd or os.getcwd())
        sys.argv = ["graftline", *args]
        warnings.resetwarnings()
        logging.getLogger().handlers.clear()  # they are pytest's
        importlib.reload(console)  # it looks for the width of its lines when it is imported
        main()
        code = 0
    except SystemExit as end:
        code = end.code
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def _ended(child: int) -> int:
    until = time.monotonic() + TIMEOUT_S
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError(f"the verb took longer than {TIMEOUT_S:g} s")
        time.sleep(_LOOK_S)
