"""Sets `.venv` up for this checkout: look at the machine, decide, install with uv, remember what was done.

Run by `setup.sh`; needs Python 3.11 and nothing else. Run again, it changes nothing and says nothing unless
pyproject.toml or a choice has changed.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from deploy.choices import (
    SPACE_GB,
    UV,
    Choice,
    Machine,
    SetupError,
    choose,
    mark,
    pip_settings,
    satisfied,
    stale,
    torch_source,
    uv_settings,
    why_failed,
)

ROOT = Path(__file__).resolve().parents[1]
_PAGE_TIMEOUT_S = 20


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    parser = argparse.ArgumentParser(prog="deploy/setup.sh", description="Set .venv up, or change nothing.")
    parser.add_argument("--dev", action="store_true", help="install what the tests need besides")
    dev = parser.parse_args(arguments).dev
    try:
        set_up(ROOT, environ, dev=dev)
    except SetupError as error:
        sys.stderr.write(f"set-up: {error.code}: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nset-up: interrupted; run it again to go on.\n")
        return 130
    return 0


def set_up(root: Path, environ: Mapping[str, str], *, dev: bool) -> None:
    """Bring the environment of `root` to what is chosen. Raises SetupError."""
    machine = look()
    choice = choose(environ, machine, dev=dev)
    pyproject, scripts = (root / "pyproject.toml").read_bytes(), _scripts(root)
    environment = Environment(root, environ)
    if satisfied(environment.read(), mark(root, pyproject, scripts, choice)):
        return
    with _alone(root):
        stamp = environment.read()
        if stamp.get("dev") and not dev:  # what the tests need is not taken away by `make up`
            choice = choose(environ, machine, dev=True)
        wanted = mark(root, pyproject, scripts, choice)
        if not satisfied(stamp, wanted):  # another set-up may have run while we waited
            environment.bring(choice, machine, wanted)


def look() -> Machine:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return Machine(gpu=_gpu(), system=platform.system(), cpu=platform.machine(), cpu_flags=frozenset(flags.split()))


class Environment:
    """The `.venv` of a checkout, and the commands that fill it."""

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        self._root = root
        self._environ = {name: value for name, value in environ.items() if not name.startswith("PYTHON")}
        self._venv = root / ".venv"
        self._python = self._venv / "bin" / "python"
        self._stamp = self._venv / ".graftline-setup"

    def read(self) -> Mapping[str, Any]:
        """What the last finished set-up left; empty where there is none, or where it no longer stands."""
        whole = self._python.exists() and (self._venv / "bin" / "graftline").exists()
        return self._stamped() if whole else {}

    def bring(self, choice: Choice, machine: Machine, wanted: Mapping[str, Any]) -> None:
        """Install what is chosen. Until the stamp is written, the next run starts over."""
        began = time.monotonic()
        others = ", ".join(extra for extra in choice.extras if not extra.startswith("engine-")) or "nothing"
        say(f"engine {choice.engine} ({choice.why}); besides: {others}{', dev' if choice.dev else ''}")
        self._check_space(choice)
        self._make_venv()
        self._stamp.unlink(missing_ok=True)
        pip = pip_settings(_text(self._run([self._python, "-m", "pip", "config", "list"])))
        self._environ |= uv_settings(pip, self._environ)
        if gone := stale(self._installed(), choice):
            say(f"removing {', '.join(gone)}, which do not go with engine {choice.engine}")
            self._uv("uninstall", *gone)
        links = (self._environ.get("UV_FIND_LINKS", "").replace(",", " ") or pip.get("find-links", "")).split()
        added, arguments = torch_source(choice, machine, links, _files(links), f"cp3{sys.version_info.minor}")
        self._environ |= added
        group = ["--group", "dev"] if choice.dev else []
        extras = f"[{','.join(choice.extras)}]" if choice.extras else ""
        say("installing; a first time downloads up to 2 GB for a CPU engine, 6 GB for a GPU one")
        self._uv("install", *arguments, *group, "--editable", f".{extras}")
        new = self._stamp.with_name(f"{self._stamp.name}.new")
        new.write_text(json.dumps(wanted, indent=1))
        new.replace(self._stamp)
        say(f"done in {time.monotonic() - began:.0f} s")

    def _check_space(self, choice: Choice) -> None:
        wanted_gb = SPACE_GB[choice.torch and not any(name.startswith("torch-") for name in self._installed())]
        if self._free_gb() < wanted_gb:
            raise SetupError(
                "disk_low",
                f"{self._free_gb():.1f} GB are free at {self._root}; {wanted_gb:.0f} GB are needed. Free some space, "
                "or set GRAFTLINE_ENGINE=none and GRAFTLINE_EXTRAS=postgres for a gateway without engine and training.",
            )

    def _make_venv(self) -> None:
        """See that there is an environment of this place, by a Python that is new enough, with uv in it."""
        bin_ = self._venv / "bin"
        moved = self._stamped().get("root", str(self._root)) != str(self._root)  # its scripts start nothing any more
        usable = Path(sys.prefix).resolve() == self._venv.resolve()  # setup.sh runs us with its Python if it is
        if moved or not usable or not (bin_ / "pip").exists():
            python = getattr(sys, "_base_executable", sys.executable)  # the running one may be what is replaced
            say(f"making {self._venv} with Python {platform.python_version()}")
            done = self._run([python, "-m", "venv", "--clear", self._venv])
            if done.returncode:
                raise SetupError(
                    "venv_missing",
                    f"{python} cannot make an environment: {_text(done)[-400:]}\nInstall its venv module (python3-venv "
                    "on Debian and Ubuntu), or name another Python: PYTHON=/path/to/python3.11.",
                )
        if not (bin_ / "uv").exists():
            say("installing uv")
            done = self._run([self._python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", UV])
            if done.returncode:
                sys.stderr.write(f"{_text(done)}\n")
                raise why_failed(_text(done), self._free_gb())

    def _uv(self, command: str, *arguments: str) -> None:
        """Run `uv pip COMMAND`; its progress goes straight to the terminal."""
        uv = str(self._venv / "bin" / "uv")
        done = subprocess.run(
            [uv, "pip", command, "--python", str(self._python), *arguments],
            cwd=self._root,
            env=self._environ,
            check=False,
        )
        if done.returncode:
            # What uv said is on the terminal, not here; whether it was the network is asked once more, and read.
            probe = self._run([uv, "pip", "compile", "--quiet", "--no-cache", "--no-deps", "-"], "idna\n")
            raise why_failed(_text(probe) if probe.returncode else "", self._free_gb())

    def _run(self, command: Sequence[str | Path], said: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self._root, env=self._environ, input=said, capture_output=True, text=True, check=False
        )

    def _stamped(self) -> dict[str, Any]:
        try:
            stamp = json.loads(self._stamp.read_bytes())
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) else {}

    def _installed(self) -> list[str]:
        """What is installed, as `name-version`."""
        return [
            entry.name.removesuffix(".dist-info") for entry in self._venv.glob("lib/python3*/site-packages/*.dist-info")
        ]

    def _free_gb(self) -> float:
        return shutil.disk_usage(self._root).free / 1e9


def say(text: str) -> None:
    sys.stderr.write(f"set-up: {text}\n")
    sys.stderr.flush()


def _text(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stdout + done.stderr).strip()


def _scripts(root: Path) -> bytes:
    """The set-up itself: when it changes, it runs again."""
    return b"".join(path.read_bytes() for path in sorted((root / "deploy").glob("*.py")))


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One set-up at a time in a checkout."""
    with (root / "pyproject.toml").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this checkout")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _gpu() -> str:
    if Path("/dev/nvidia0").exists():
        return "/dev/nvidia0"
    tool = shutil.which("nvidia-smi")  # on WSL there is the tool and no such device
    if tool is None:
        return ""
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next((line.partition(" (")[0] for line in listed.splitlines() if line.startswith("GPU ")), "")


def _files(links: Sequence[str]) -> list[str]:
    """The wheels that find-links leads to: files in folders, and links on pages."""
    found: list[str] = []
    for link in links:
        parts = urlsplit(link)
        place = Path(unquote(parts.path)) if parts.scheme in ("", "file") else None
        try:
            if place is not None and place.is_dir():
                found += [entry.name for entry in place.iterdir()]
                continue
            if place is not None:
                page = place.read_text()
            else:
                with urllib.request.urlopen(link, timeout=_PAGE_TIMEOUT_S) as answer:
                    page = answer.read().decode("utf-8", "replace")
        except (OSError, ValueError):
            continue  # uv says what is wrong with it, should it matter
        found += [unquote(name) for name in re.findall(r"[^\"'/<>\s=]+\.whl", page)]
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
