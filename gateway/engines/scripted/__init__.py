"""A fake engine that ships: vLLM 0.32's HTTP, deterministic, timed, and misbehaving on cue.

Tests and demos start it inside a process (`running`), load tests as one: `python -m gateway.engines.scripted --port 0`.
It loads no model and imports nothing of the gateway. Cues are described in `cues.py`.
"""

from gateway.engines.scripted.server import Scripted, running
from gateway.engines.scripted.values import Options

__all__ = ["Options", "Scripted", "running"]
