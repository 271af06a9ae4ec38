"""How the worker asks for the engine's restart."""

from __future__ import annotations

from pathlib import Path

from gateway.engines.process import recycle
from gateway.engines.process.recycle import FILE, Request, ask, follow, take


def test_a_request_is_taken_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ask(folder, Request(started_at=5.0, why="nan"))
    ask(folder, Request(started_at=6.0, why="full"))
    assert take(folder) == Request(started_at=6.0, why="full")
    assert take(folder) is None
    (folder / FILE).write_text("{}")
    assert take(folder) is None
    assert list(folder.iterdir()) == []


async def test_the_engine_that_is_meant_is_restarted_and_one_that_was_started_since_is_not(tmp_path: Path) -> None:
    done: list[str] = []

    async def restart() -> None:
        done.append("restarted")

    ask(tmp_path, Request(started_at=100.5, why="nan"))
    assert await follow(tmp_path, spawned_at=lambda: 100.0, restart=restart)
    ask(tmp_path, Request(started_at=100.5, why="nan"))
    assert not await follow(tmp_path, spawned_at=lambda: 160.0, restart=restart)
    ask(tmp_path, Request(started_at=100.5, why="nan"))
    assert not await follow(tmp_path, spawned_at=lambda: None, restart=restart)
    assert not await follow(tmp_path, spawned_at=lambda: 100.0, restart=restart)
    assert done == ["restarted"]
    assert recycle.LOOK_EVERY_S <= 0.5
