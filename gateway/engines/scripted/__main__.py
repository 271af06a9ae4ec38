"""`python -m gateway.engines.scripted --port 0`: the scripted engine as a process of its own.

The first line on standard output is its URL. `[[die]]` ends the process at once, as a crash would.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from gateway.engines.scripted.server import Scripted
from gateway.engines.scripted.values import Options


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m gateway.engines.scripted", description="A scripted fake engine.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    parser.add_argument("--uds", type=Path, help="unix socket to listen on instead")
    parser.add_argument("--model", default="base", help="name of the base model")
    parser.add_argument("--max-model-len", type=int, default=1024, help="context length, tokens")
    parser.add_argument("--max-lora-rank", type=int, default=16, help="largest adapter rank")
    parser.add_argument("--max-loras", type=int, default=0, help="adapters that run at once; 0 for no limit")
    parser.add_argument("--ttft", type=float, default=0.0, help="seconds to the first token")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between tokens")
    args = parser.parse_args()
    options = Options(
        model=args.model,
        max_model_len=args.max_model_len,
        max_lora_rank=args.max_lora_rank,
        max_loras=args.max_loras,
        ttft_s=args.ttft,
        pace_s=args.pace,
    )
    try:
        import uvloop
    except ImportError:
        asyncio.run(_serve(options, args.host, args.port, args.uds))
    else:
        uvloop.run(_serve(options, args.host, args.port, args.uds))


async def _serve(options: Options, host: str, port: int, uds: Path | None) -> None:
    scripted = Scripted(options, on_death=lambda: os._exit(1))
    await scripted.listen(uds=uds, host=host, port=port)
    sys.stdout.write(f"{scripted.url}\n")
    sys.stdout.flush()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    scripted.close()


if __name__ == "__main__":
    main()
