"""The supervisor with real, tiny processes: what is started is restarted, drained, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.engines.process.supervisor import Backoff, Child, ChildFailed, State, Status, Supervisor, log_tail

pytestmark = pytest.mark.slow

FAST = Backoff(first_s=0.02, factor=2.0, most_s=0.1, healthy_s=30)

#: Says that it is up, drains on SIGTERM, and starts a grandchild in a session of its own when asked to.
WORKER = """
import os, signal, subprocess, sys, time
folder, name, *wishes = sys.argv[1:]
def leave(*_):
    open(f"{folder}/order", "a").write(name + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in wishes else leave)
if "grandchild" in wishes:
    other = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
    open(f"{folder}/{name}.grandchild", "w").write(str(other.pid))
print("hello from", name, flush=True)
open(f"{folder}/{name}.starts", "a").write(f"{os.getpid()}\\n")
open(f"{folder}/{name}.up", "w").close()
time.sleep(600)
"""


def script(folder: Path, name: str, *wishes: str, code: str = WORKER) -> Child:
    """A child that is ready once it has written its file."""

    async def ready() -> bool:
        return (folder / f"{name}.up").exists()

    return Child(
        name=name,
        argv=(sys.executable, "-I", "-S", "-c", code, str(folder), name, *wishes),
        env={"PATH": os.environ["PATH"]},
        log=folder / f"{name}.log",
        ready=ready,
        prepare=lambda: (folder / f"{name}.up").unlink(missing_ok=True),
        stop_timeout_s=10,
        check_every_s=0.02,
        backoff=FAST,
    )


@asynccontextmanager
async def running(folder: Path, *children: Child) -> AsyncIterator[tuple[Supervisor, list[Status]]]:
    """A supervisor at work, stopped at the end; with every change of state that it told of."""
    told: list[Status] = []
    supervisor = Supervisor(children, state_file=folder / "state.json", changed=told.append)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(supervisor.run())
        try:
            yield supervisor, told
        finally:
            supervisor.stop()
            await task


async def until(true: Callable[[], Any], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - it is other processes that change
            await asyncio.sleep(0.01)


def all_ready(supervisor: Supervisor) -> bool:
    return all(status.state is State.READY for status in supervisor.status())


def restarted(supervisor: Supervisor, times: int) -> bool:
    return supervisor.status()[0].restarts == times


def on_disk(folder: Path) -> dict[str, Any]:
    return {child["name"]: child for child in orjson.loads((folder / "state.json").read_bytes())["children"]}


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def number(path: Path) -> int:
    return int(path.read_text())


async def test_children_become_ready_and_the_state_file_says_which_process_each_is(tmp_path: Path) -> None:
    async with running(tmp_path, script(tmp_path, "engine"), script(tmp_path, "gateway")) as (supervisor, _):
        await until(lambda: all_ready(supervisor))
        seen = on_disk(tmp_path)
        assert seen["engine"]["state"] == "ready"
        assert seen["engine"]["restarts"] == 0
        assert seen["engine"]["pid"] == number(tmp_path / "engine.starts")
        assert "hello from engine" in (tmp_path / "engine.log").read_text()
    assert on_disk(tmp_path)["engine"]["state"] == "stopped"


async def test_stopping_drains_from_the_last_child_to_the_first(tmp_path: Path) -> None:
    names = ("engine", "worker", "gateway")
    async with running(tmp_path, *(script(tmp_path, name) for name in names)) as (supervisor, told):
        await until(lambda: all_ready(supervisor))
    assert (tmp_path / "order").read_text().split() == ["gateway", "worker", "engine"]
    assert {status.exit_code for status in supervisor.status()} == {0}
    ended = [status.name for status in told if status.state is State.STOPPED]
    assert ended == ["gateway", "worker", "engine"]


async def test_a_killed_child_comes_back_after_a_pause(tmp_path: Path) -> None:
    async with running(tmp_path, script(tmp_path, "engine")) as (supervisor, told):
        await until(lambda: all_ready(supervisor))
        before = on_disk(tmp_path)["engine"]["pid"]
        os.kill(before, signal.SIGKILL)
        await until(lambda: State.BACKOFF in [status.state for status in told])
        await until(lambda: all_ready(supervisor))
        after = on_disk(tmp_path)["engine"]
    assert after["pid"] != before
    assert after["restarts"] == 1
    assert after["exit_code"] == 128 + signal.SIGKILL


async def test_what_a_dead_child_had_started_is_gone_before_it_starts_again(tmp_path: Path) -> None:
    async with running(tmp_path, script(tmp_path, "engine", "grandchild")) as (supervisor, told):
        await until(lambda: all_ready(supervisor))
        grandchild = number(tmp_path / "engine.grandchild")
        assert alive(grandchild)
        os.kill(on_disk(tmp_path)["engine"]["pid"], signal.SIGKILL)
        await until(lambda: State.BACKOFF in [status.state for status in told])
        assert not alive(grandchild)


async def test_a_child_that_ignores_sigterm_is_killed_when_its_time_is_up(tmp_path: Path) -> None:
    stubborn = replace(script(tmp_path, "engine", "stubborn", "grandchild"), stop_timeout_s=0.2)
    async with running(tmp_path, stubborn) as (supervisor, _):
        await until(lambda: all_ready(supervisor))
        grandchild = number(tmp_path / "engine.grandchild")
    assert supervisor.status()[0].state is State.STOPPED
    assert supervisor.status()[0].exit_code == 128 + signal.SIGKILL
    assert not alive(grandchild)


async def test_giving_up_on_a_child_shows_its_log_and_stops_the_others(tmp_path: Path) -> None:
    broken = script(tmp_path, "engine", code="import sys; sys.exit('no such model: banana')")
    supervisor = Supervisor([broken, script(tmp_path, "gateway")], state_file=tmp_path / "state.json")
    with pytest.raises(ChildFailed, match="did not become ready in 3 starts") as failed:
        await asyncio.wait_for(supervisor.run(), 20)
    assert "no such model: banana" in str(failed.value)
    states = {status.name: status.state for status in supervisor.status()}
    assert states == {"engine": State.FAILED, "gateway": State.STOPPED}


async def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    missing = replace(script(tmp_path, "engine"), argv=("/no/such/python",), attempts_max=1)
    with pytest.raises(ChildFailed, match="cannot start /no/such/python: No such file"):
        await asyncio.wait_for(Supervisor([missing]).run(), 20)


async def test_a_child_that_was_ready_once_is_never_given_up(tmp_path: Path) -> None:
    child = replace(script(tmp_path, "engine"), attempts_max=1)
    async with running(tmp_path, child) as (supervisor, told):
        for restarts in (1, 2, 3):
            await until(lambda: all_ready(supervisor))
            os.kill(on_disk(tmp_path)["engine"]["pid"], signal.SIGKILL)
            await until(partial(restarted, supervisor, restarts))
        await until(lambda: all_ready(supervisor))
    assert [status.state for status in told].count(State.BACKOFF) == 3


async def never() -> bool:
    raise ConnectionRefusedError


async def test_a_child_that_is_not_ready_in_time_is_started_again(tmp_path: Path) -> None:
    slow = replace(script(tmp_path, "engine"), ready=never, ready_timeout_s=0.2, attempts_max=2)
    with pytest.raises(ChildFailed, match="in 2 starts"):
        await asyncio.wait_for(Supervisor([slow]).run(), 20)
    assert len((tmp_path / "engine.starts").read_text().split()) == 2


async def test_a_child_that_falls_silent_is_started_again(tmp_path: Path) -> None:
    child = replace(script(tmp_path, "engine"), silent_s_max=0.1)
    async with running(tmp_path, child) as (supervisor, _):
        await until(lambda: all_ready(supervisor))
        (tmp_path / "engine.up").unlink()
        await until(lambda: supervisor.status()[0].restarts == 1)
        await until(lambda: all_ready(supervisor))


async def test_a_child_can_be_recycled_without_a_pause(tmp_path: Path) -> None:
    async with running(tmp_path, script(tmp_path, "engine")) as (supervisor, told):
        await until(lambda: all_ready(supervisor))
        before = on_disk(tmp_path)["engine"]["pid"]
        await supervisor.restart("engine")
        assert not alive(before)
        await until(lambda: all_ready(supervisor))
        after = on_disk(tmp_path)["engine"]
        assert (after["pid"] != before, after["recycles"], after["restarts"]) == (True, 1, 0)
        assert supervisor.spawned_at("engine")
    assert State.BACKOFF not in [status.state for status in told]


async def test_stopping_while_a_child_still_starts_leaves_nothing(tmp_path: Path) -> None:
    child = replace(script(tmp_path, "engine", "grandchild"), ready=never)
    async with running(tmp_path, child) as (supervisor, _):
        await until((tmp_path / "engine.starts").exists)
    assert supervisor.status()[0].state is State.STOPPED
    assert not alive(number(tmp_path / "engine.starts"))
    assert not alive(number(tmp_path / "engine.grandchild"))


async def test_cancelling_the_supervisor_kills_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    supervisor = Supervisor([script(tmp_path, "engine", "stubborn", "grandchild")])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(supervisor.run())
        await until(lambda: all_ready(supervisor))
        task.cancel()
    assert not alive(number(tmp_path / "engine.starts"))
    assert not alive(number(tmp_path / "engine.grandchild"))


PARENT = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_supervisor import script
from gateway.engines.process.supervisor import Supervisor
folder = Path(sys.argv[1])
names = ("engine", "gateway")
children = [script(folder, name, "stubborn", "grandchild") for name in names]
asyncio.run(Supervisor(children, state_file=folder / "state.json").run())
"""


@pytest.mark.parametrize("victim", ["supervisor", "keeper"])
async def test_killing_the_parent_with_9_takes_everything_along(tmp_path: Path, victim: str) -> None:
    here = str(Path(__file__).parent)
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path), here, env=dict(os.environ)
    )
    try:
        await until(lambda: (tmp_path / "state.json").exists() and all_are_ready_on_disk(tmp_path))
        pids = [child["pid"] for child in on_disk(tmp_path).values()]
        pids += [number(tmp_path / f"{name}.grandchild") for name in ("engine", "gateway")]
        assert all(map(alive, pids))
        if victim == "keeper":
            os.kill(keeper_of(pids[0]), signal.SIGKILL)
            await until(lambda: not alive(pids[0]))
        parent.kill()
        await parent.wait()
        await until(lambda: not any(map(alive, pids[:2] + pids[3:])))
        if victim == "supervisor":
            await until(lambda: not alive(pids[2]))
    finally:
        if parent.returncode is None:
            parent.kill()
            await parent.wait()
        clean_up(tmp_path)


def clean_up(folder: Path) -> None:
    for pid in map(number, folder.glob("*.grandchild")):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def all_are_ready_on_disk(folder: Path) -> bool:
    return all(child["state"] == "ready" for child in on_disk(folder).values())


def keeper_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_pauses_grow_to_their_limit() -> None:
    backoff = Backoff(first_s=0.5, factor=2.0, most_s=30.0)
    assert [backoff.pause_s(n) for n in (1, 2, 3, 4, 8, 10_000)] == [0.5, 1.0, 2.0, 4.0, 30.0, 30.0]


def test_the_end_of_a_log_is_readable_whatever_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert log_tail(path) == "(there is no log)"
    path.write_bytes(b"\xff\n" * 50 + b"last")
    assert log_tail(path, lines=2) == "\ufffd\nlast"


async def test_a_child_that_yields_stands_back_for_other_sessions(tmp_path: Path) -> None:
    if not stands_back(os.getpid()):
        pytest.skip("this kernel shares processors by process, not by session")
    shy = replace(script(tmp_path, "shy"), yields=7)
    async with running(tmp_path, shy, script(tmp_path, "bold")) as (supervisor, _):
        await until(lambda: all(status.state is State.READY for status in supervisor.status()))
        pids = {status.name: status.pid for status in supervisor.status()}
        assert [stands_back(pids["shy"]), stands_back(pids["bold"])] == ["7", "0"]


def stands_back(pid: int | None) -> str:
    """The nice value of the session that a process is in; empty where the kernel has none.

    The file is missing without autogroups, and is there but says nothing where a control group has its own share.
    """
    try:
        return Path(f"/proc/{pid}/autogroup").read_text().rpartition(" ")[2].strip()
    except FileNotFoundError:
        return ""
