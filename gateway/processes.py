"""The three processes: the gateway, the worker, and `up`, which runs them and the engine on one machine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import httpx
import uvicorn
import uvloop

from gateway.api.protocol import bounded
from gateway.app import build
from gateway.control import make_admin_key, open_control
from gateway.engines.process import launch, recycle
from gateway.engines.process.supervisor import Child, ChildFailed, Status, Supervisor
from gateway.engines.vllm import Vllm
from gateway.settings import PREFIX, Settings, SettingsError
from gateway.tuning.signing import check_signing
from gateway.working import work

KEEP_ALIVE_S = 75  # longer than the usual load balancer's minute, so that it never sends into a closing connection
BACKLOG = 4096
CAPACITY_DEFAULT = 1024
CPU_ENGINE_YIELDS = 10  # on a CPU the engine would keep every core from the gateway that passes its tokens on
SWITCH_S = 0.0005  # the capture thread gives way to a request after half a millisecond, not after five


def serve(settings: Settings, *, worker: int = 0) -> None:
    """Run one gateway process until SIGTERM or SIGINT; streams get `drain_timeout_s` to end."""
    listener = listen(settings)
    serving = build(settings, worker=worker)
    config = uvicorn.Config(
        serving.app,
        http=bounded(settings.header_bytes_max, settings.header_timeout_s, settings.send_timeout_s),
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(settings.drain_timeout_s),
    )
    server = uvicorn.Server(config)

    async def main() -> None:
        async with serving.running():
            await server.serve(sockets=[listener])

    sys.setswitchinterval(SWITCH_S)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn raises the signal again after its drain; ours comes after that
    uvloop.run(main())


def listen(settings: Settings) -> socket.socket:
    """The listening socket; shared by port among several workers. Raises `SettingsError` when it is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if settings.workers > 1:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. "
            f"Stop what uses it, or choose another with {PREFIX}PORT."
        ) from error
    return listener


def run_worker(settings: Settings) -> None:
    """Run the worker until SIGTERM or SIGINT. Raises SettingsError."""
    check_signing(settings)

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await work(settings, capacity=settings.engine.max_cpu_loras or CAPACITY_DEFAULT, stop=stop)

    asyncio.run(main())


def up(settings: Settings, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Run engine, worker and gateway here, in the foreground, until Ctrl-C. Raises what cannot be started."""
    listen(settings).close()  # told now, not by a child that dies
    check_signing(settings)
    control = open_control(settings)
    settings.logs.mkdir(parents=True, exist_ok=True)
    if make_admin_key(control, settings.admin_key):
        say(f"made an admin key: {settings.admin_key}")
    child_env = dict(environ) | {PREFIX + "HOME": str(settings.home.absolute())}
    children = []
    if not settings.engine.urls:
        engine, planned = _engine(settings, environ, control.base.folder, say)
        child_env |= {
            PREFIX + "ENGINE_URLS": planned.url,
            PREFIX + "ENGINE_MAX_LORAS": str(planned.slots.batch),
            PREFIX + "ENGINE_MAX_CPU_LORAS": str(planned.slots.cached),
            PREFIX + "ENGINE_SUPERVISED": "true",
        }
        children.append(engine)
    children.append(_own("worker", ["work"], child_env, settings, _always))
    children += [
        _own(f"gateway-{number}", ["serve", "--worker", str(number)], child_env, settings, _alive(settings))
        for number in range(settings.workers)
    ]
    supervisor = Supervisor(
        children,
        state_file=settings.home.absolute() / "state.json",
        changed=_teller(settings, say),
    )

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.stop)
        try:
            async with asyncio.TaskGroup() as group:
                telling = group.create_task(_tell_when_ready(settings, say))
                recycling = group.create_task(_recycle_when_asked(settings, supervisor))
                await supervisor.run()
                telling.cancel()
                recycling.cancel()
        except* ChildFailed as failed:
            raise failed.exceptions[0] from None

    asyncio.run(main())


def _engine(
    settings: Settings, environ: Mapping[str, str], base: Path, say: Callable[[str], None]
) -> tuple[Child, launch.Launch]:
    """vLLM as a child, and the plan that it is started by: a private socket, restarts."""
    chosen = settings.engine
    socket_path = launch.make_socket_folder(settings.engine_socket)
    planned = launch.plan(
        launch.EngineSettings(
            model=str(base),
            served_name=settings.served_name,
            socket=socket_path,
            device=chosen.device,
            max_loras=chosen.max_loras,
            max_cpu_loras=chosen.max_cpu_loras,
            max_lora_rank=chosen.max_lora_rank,
            max_model_len=chosen.max_model_len,
            kv_cache_gib=chosen.kv_cache_gib,
            args=chosen.args,
        ),
        environ,
    )
    found = f"{planned.installed.distribution} {planned.installed.version} on {planned.device}"
    say(f"engine: {found}, {planned.slots.batch} adapters in a batch; the first start takes a minute or two")
    engine = Vllm("local", planned.url)
    child = Child(
        name="engine",
        argv=planned.argv,
        env=planned.env,
        log=settings.logs / "engine.log",
        ready=engine.healthy,
        prepare=lambda: launch.make_socket_folder(settings.engine_socket),
        ready_timeout_s=chosen.start_timeout_s,
        stop_timeout_s=settings.drain_timeout_s,
        silent_s_max=60.0,
        yields=CPU_ENGINE_YIELDS if planned.device == "cpu" else 0,
    )
    return child, planned


def _own(
    name: str, verb: list[str], env: Mapping[str, str], settings: Settings, ready: Callable[[], Awaitable[bool]]
) -> Child:
    return Child(
        name=name,
        argv=[sys.executable, "-m", "gateway.cli", *verb],
        env=env,
        log=settings.logs / f"{name}.log",
        ready=ready,
        stop_timeout_s=settings.drain_timeout_s + 5,
    )


async def _always() -> bool:
    return True


def _alive(settings: Settings) -> Callable[[], Awaitable[bool]]:
    url = f"http://{'127.0.0.1' if settings.host in ('', '0.0.0.0') else settings.host}:{settings.port}/healthz"

    async def check() -> bool:
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
                return (await client.get(url)).status_code == 200
        except httpx.HTTPError:
            return False

    return check


async def _recycle_when_asked(settings: Settings, supervisor: Supervisor) -> None:
    """Restart the engine when the worker asks: it gave NaN, differs, or has no room left. It is drained by then."""
    folder = settings.home.absolute() / "run"
    while not settings.engine.urls:
        with contextlib.suppress(OSError):
            await recycle.follow(
                folder,
                spawned_at=lambda: supervisor.spawned_at("engine"),
                restart=lambda: supervisor.restart("engine"),
            )
        await asyncio.sleep(recycle.LOOK_EVERY_S)


async def _tell_when_ready(settings: Settings, say: Callable[[str], None]) -> None:
    """One screen with all that a newcomer needs, once a request would be answered."""
    url = f"http://{settings.host}:{settings.port}"
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        while True:
            try:
                if (await client.get(f"{url}/readyz")).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.25)
    say(_WELCOME.format(url=url, key_file=_shown(settings.admin_key), model=settings.served_name))


def _shown(path: Path) -> str:
    """The path as a person in this folder would write it."""
    return os.path.relpath(path)


def _teller(settings: Settings, say: Callable[[str], None]) -> Callable[[Status], None]:
    """Says each change of a child's state once."""
    said: dict[str, tuple[str, int]] = {}

    def changed(status: Status) -> None:
        now = (status.state, status.restarts + status.recycles)
        if said.get(status.name) != now:
            said[status.name] = now
            say(_told(status, settings))

    return changed


def _told(status: Status, settings: Settings) -> str:
    text = f"{status.name}: {status.state}"
    if status.restarts:
        text += f" (restarted {status.restarts} times, exit code {status.exit_code}; see {settings.logs})"
    return text


_WELCOME = """
Graftline is ready.  {url}/v1   model: {model}   admin key: {key_file}

  curl -s {url}/v1/chat/completions -H "Authorization: Bearer $(cat {key_file})" \\
    -H 'Content-Type: application/json' \\
    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "What does the Ember blender weigh?"}}]}}'

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key=open("{key_file}").read().strip())
  print(client.chat.completions.create(model="{model}",
        messages=[{{"role": "user", "content": "When are you open?"}}]).choices[0].message.content)

Ctrl-C stops everything."""


def configure_logs(level: int = logging.INFO) -> None:
    """One JSON event a line on standard error; never a prompt, never a key."""
    logging.basicConfig(level=level, format=_LOG_FORMAT, stream=sys.stderr, force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)


_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
