"""The scripted engine's state and routes: adapters, cues to come, and answers in vLLM's words."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from gateway.engines import nan
from gateway.engines.scripted import cues, responses, rules, wording
from gateway.engines.scripted.cues import Cues
from gateway.engines.scripted.play import Player, compose
from gateway.engines.scripted.rules import Refused
from gateway.engines.scripted.slots import Slots
from gateway.engines.scripted.values import Options, Reply, Request
from gateway.engines.scripted.wording import Kind


@dataclass(slots=True)
class Script:
    """What `POST /script` set. `next` lists cues for the requests to come, one each, before those of their prompts.

    `nan` names models whose every answer is NaN. `tripwire` is our plugin's part that ends such requests; without it
    they are answered, and only counted. `contained`: it says that nothing else was touched.
    """

    healthy: bool = True
    load_s: float = 0.0
    load_error: str = ""
    next: list[str] = field(default_factory=list)
    nan: frozenset[str] = frozenset()
    tripwire: bool = True
    contained: bool = False


class Engine:
    """Everything behind the wire. `handle` answers one request, and is cancelled when its client leaves."""

    def __init__(self, options: Options, die: Callable[[], None]) -> None:
        self.options = options
        self.adapters: dict[str, str] = {}
        self.script = Script()
        self.requests = self.cancelled = self.running = self.corrupted = 0
        #: The last inference body and its request id, for tests that look at what the engine was sent.
        self.last: dict[str, Any] = {}
        self._started_at = time.time()
        self.player = Player(die, self._poisoned)
        self.slots = Slots(options.max_loras)
        self._first: tuple[float, str] | None = None

    async def handle(self, request: Request, reply: Reply) -> None:
        try:
            match request.path:
                case "/v1/chat/completions" | "/v1/completions" | "/v1/responses" if request.method == "POST":
                    await self._infer(request, reply)
                case "/v1/load_lora_adapter" if request.method == "POST":
                    reply.whole(200, await self._load(rules.document(request.body)), b"")
                case "/v1/unload_lora_adapter" if request.method == "POST":
                    reply.whole(200, self._unload(rules.document(request.body)), b"")
                case "/script":
                    reply.whole(200, self._rescript(request))
                case _:
                    status, body = self._read(request)
                    reply.whole(status, body)
        except Refused as error:
            reply.whole(error.status, error.body)

    def _read(self, request: Request) -> tuple[int, bytes]:
        if request.path.startswith("/v1/") and request.method == "GET" and request.path != "/v1/models":
            return 404, wording.NOT_FOUND
        match request.path:
            case "/v1/models":
                now = int(time.time())
                return 200, wording.models(self.options.model, self.options.max_model_len, self.adapters, now)
            case "/health" | "/ping":
                return 200 if self.script.healthy else 503, b""
            case "/version":
                return 200, b'{"version":"0.32.0"}'
            case "/load":
                return 200, b'{"server_load":%d}' % self.running
            case "/metrics":
                return 200, self._metrics()
            case _:
                return 404, wording.NOT_FOUND

    # adapters

    async def _load(self, body: dict[str, Any]) -> bytes:
        for name in ("lora_name", "lora_path"):
            if name not in body:
                raise rules.invalid("missing", f"body.{name}", "Field required", f"<dict of {len(body)} items>")
        name, folder = str(body["lora_name"]), Path(str(body["lora_path"]))
        if not name or not body["lora_path"]:
            raise _input("Both 'lora_name' and 'lora_path' must be provided.")
        if name == self.options.model:
            raise _input(f"The lora adapter '{name}' conflicts with a served base model.")
        if name in self.adapters:
            words = "If you want to load the adapter in place, set 'load_inplace' to True."
            raise _input(f"The lora adapter '{name}' has already been loaded. {words}")
        await asyncio.sleep(self.script.load_s)
        config = folder / "adapter_config.json"
        if not config.is_file():
            words = f"Loading lora {name} failed: No adapter found for <path>"
            raise Refused(404, wording.error(404, "NotFoundError", words))
        rank = json.loads(config.read_text()).get("r", 0)
        why = self.script.load_error
        if not why and rank > self.options.max_lora_rank:
            why = f"LoRA rank {rank} is greater than max_lora_rank {self.options.max_lora_rank}."
        if why:
            words = f"Worker failed with error '{why}', please check the stack trace above for the root cause"
            raise Refused(500, wording.error(500, "InternalServerError", f"Call to add_lora method failed: {words}"))
        self.adapters[name] = str(folder)
        return f"Success: LoRA adapter '{name}' added successfully.".encode()

    def _unload(self, body: dict[str, Any]) -> bytes:
        name = str(body.get("lora_name", ""))
        if not name:
            raise _input("'lora_name' needs to be provided to unload a LoRA adapter.")
        if self.adapters.pop(name, None) is None:
            words = f"The lora adapter '{name}' cannot be found."
            raise Refused(404, wording.error(404, "NotFoundError", words))
        return f"Success: LoRA adapter '{name}' removed successfully.".encode()

    # inference

    async def _infer(self, request: Request, reply: Reply) -> None:
        self.requests += 1
        body = rules.document(request.body)
        self.last = {"path": request.path, "request_id": request.request_id, "body": body}
        model = str(body.get("model") or self.options.model)
        if model != self.options.model and model not in self.adapters:
            raise rules.unknown_model(model, self.options.model)
        kind: Kind = "completions" if request.path == "/v1/completions" else "chat"
        shaped = responses.as_chat(body) if request.path == "/v1/responses" else body
        ask = rules.check(kind, shaped, self.options.max_model_len)
        told = Cues(ttft_s=self.options.ttft_s, pace_s=self.options.pace_s, nan=model in self.script.nan)
        told = cues.parse(self.script.next.pop(0), told) if self.script.next else told
        for text in ask.texts:
            told = cues.parse(text, told)
        if told.nan and self.script.tripwire:
            told = replace(told, fault="nan", fault_at=told.nan_at)
        else:
            self.corrupted += told.nan
        self.running += 1
        try:
            part = compose(request, ask, told, model, self._says(model))
            async with self.slots.slot(model) if model in self.adapters else nullcontext():
                await self.player.play(part, reply, as_response=request.path == "/v1/responses")
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    def _poisoned(self, model: str) -> str:
        """What the patched vLLM says of a request whose logits are NaN."""
        self.corrupted += 1
        now = time.time()
        self._first = self._first or (now, model)
        return nan.write(at=now, first_at=self._first[0], first=[self._first[1]], contained=self.script.contained)

    def _says(self, model: str) -> str:
        """The word by which a model is known: what `scripted.json` in its folder says, else its name."""
        if model not in self.adapters:
            return model
        told = Path(self.adapters[model]) / "scripted.json"
        if told.is_file():
            return str(json.loads(told.read_text())["says"])
        return model.partition("@")[0]

    # script and metrics

    def _rescript(self, request: Request) -> bytes:
        if request.method == "POST":
            body = rules.document(request.body)
            known = {"healthy", "load_s", "load_error", "next", "nan", "tripwire", "contained", "forget"}
            if unknown := body.keys() - known:
                raise rules.bad(f"the script has {sorted(known)}, not {sorted(unknown)}", None)
            if body.pop("forget", False):
                self.adapters.clear()
            if "nan" in body:
                body["nan"] = frozenset(body["nan"])
            self.script = replace(self.script, **body)
        counts = {name: getattr(self, name) for name in ("requests", "cancelled", "running", "last")}
        counts |= {"tokens": self.player.tokens, "adapters": self.adapters, "adapters_most": self.slots.most}
        return orjson.dumps(counts)

    def _metrics(self) -> bytes:
        values: dict[str, float] = {
            "num_requests_running": self.running,
            "num_requests_waiting": 0,
            "kv_cache_usage_perc": 0,
            "prompt_tokens_total": 0,
            "generation_tokens_total": self.player.tokens,
            "num_preemptions_total": 0,
            "corrupted_requests_total": self.corrupted,
        }
        return wording.metrics(self.options.model, self._started_at, values)


def _input(message: str) -> Refused:
    return Refused(400, wording.error(400, "InvalidUserInput", message))
