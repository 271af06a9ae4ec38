"""What the launcher makes of what a Ray head answers, and of one that does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from training.launchers.errors import CannotLaunch, LauncherAway
from training.launchers.ray import RayLauncher
from training.launchers.section import Launch
from training.launchers.values import LaunchSpec

Answers = dict[tuple[str, str], tuple[int, Any]]


@contextmanager
def head(answers: Answers, asked: list[tuple[str, str, Any]] | None = None) -> Iterator[RayLauncher]:
    """A Ray head that says what it is told to say."""

    class Head(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if asked is not None:
                asked.append((self.command, self.path, json.loads(body or b"null")))
            status, said = answers.get((self.command, self.path), (404, "not found"))
            raw = said.encode() if isinstance(said, str) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = _answer  # noqa: N815 - http.server's names

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Head)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield RayLauncher(url=f"http://127.0.0.1:{server.server_port}", python="py")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def spec(folder: Path) -> LaunchSpec:
    return LaunchSpec(
        name="ftjob-1", module="training.recipes", args=("a b",), folder=folder, attempt=3, environment={"A": "1"}
    )


def test_a_run_is_submitted_with_its_command_and_its_name(tmp_path: Path) -> None:
    asked: list[tuple[str, str, Any]] = []
    answers: Answers = {("GET", "/api/jobs/"): (200, []), ("POST", "/api/jobs/"): (200, {"submission_id": "s-1"})}
    with head(answers, asked) as launcher:
        run = launcher.start(spec(tmp_path / "run"))
    assert run.handle == "ray:s-1"
    body = asked[1][2]
    assert body["entrypoint"] == "py -m training.recipes 'a b'"
    assert body["submission_id"].startswith("ftjob-1-3-")
    assert body["runtime_env"] == {"env_vars": {"A": "1"}}
    assert body["metadata"]["graftline_run"] == "ftjob-1"


def test_a_run_of_that_name_that_goes_on_is_found_and_not_started_twice(tmp_path: Path) -> None:
    mine = {"submission_id": "s-7", "status": "RUNNING", "metadata": {"graftline_run": "ftjob-1"}, "type": "SUBMISSION"}
    ended = {**mine, "submission_id": "s-6", "status": "FAILED"}
    theirs: dict[str, Any] = {"submission_id": None, "status": "RUNNING", "metadata": {}}
    with head({("GET", "/api/jobs/"): (200, [theirs, ended, mine])}) as launcher:
        assert launcher.start(spec(tmp_path)).handle == "ray:s-7"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"status": "PENDING"}, None),
        ({"status": "RUNNING"}, None),
        ({"status": "SUCCEEDED", "driver_exit_code": 0}, 0),
        ({"status": "STOPPED"}, -15),
        ({"status": "FAILED", "driver_exit_code": 3}, 3),
        ({"status": "FAILED", "driver_exit_code": None}, 1),
    ],
)
def test_a_status_is_an_exit_code(said: dict[str, Any], code: int | None, tmp_path: Path) -> None:
    found = {**said, "submission_id": "s-1", "metadata": {"graftline_folder": str(tmp_path)}}
    with head({("GET", "/api/jobs/s-1"): (200, found)}) as launcher:
        run = launcher.reattach("ray:s-1")
        assert run is not None
        assert run.poll() == code


def test_a_head_that_forgot_a_run_does_not_run_it(tmp_path: Path) -> None:
    with head({}) as launcher:
        assert launcher.reattach("ray:s-1") is None
        assert launcher.reattach("local:1:2") is None


def test_a_head_that_refuses_is_no_reason_to_try_again(tmp_path: Path) -> None:
    with (
        head({("GET", "/api/jobs/"): (200, []), ("POST", "/api/jobs/"): (400, "bad runtime_env")}) as launcher,
        pytest.raises(CannotLaunch, match="bad runtime_env"),
    ):
        launcher.start(spec(tmp_path))


@pytest.mark.parametrize("answer", [(500, "oh"), (200, "<html>"), (200, {"status": "DANCING"})])
def test_an_answer_that_says_nothing_ends_no_run(answer: tuple[int, Any]) -> None:
    with head({("GET", "/api/jobs/s-1"): answer}) as launcher, pytest.raises(LauncherAway) as error:
        launcher.reattach("ray:s-1")
    assert error.value.retryable


def test_a_head_that_is_not_there_ends_no_run(tmp_path: Path) -> None:
    with head({}) as launcher:
        gone = RayLauncher(url=launcher.url, timeout_s=5)
    with pytest.raises(LauncherAway, match="does not answer"):
        gone.start(LaunchSpec(name="x", module="m", args=(), folder=tmp_path, launch=Launch()))
