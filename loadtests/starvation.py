"""`python -m loadtests.starvation`: ten adapters want two slots, and two of them never let up.

The engine alone serves whoever's adapter runs already, so that two floods keep both slots and the eight others wait for
the floods to end. Through the gateway nobody waits longer than the bound that `gateway/routing/fairness.py` states,
with L as the longest that any request took from the moment when it was let go. Both get the same clients for the same
time. `--url`, `--key`, `--model` (ten times) and `--bare-url` measure what runs elsewhere instead.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from loadtests import control
from loadtests.bare import bare
from loadtests.markers import WORDS, files, markers, packed, unpack_into, varied
from loadtests.report import Row, report
from loadtests.stack import stack, up
from loadtests.streams import percentile

SLOTS, ADAPTERS, FLOODS, FLOOD_CLIENTS = 2, 10, 2, 8
SECONDS = 40.0
TOKENS = 24
#: The settings' defaults, which the installation that is measured must have.
TURN_S = 1.0
TIMES_WORSE = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited:
    """One request, seconds. `queued_s` is the wait for a slot as the answer's head says, 0 where it says nothing."""

    model: str
    first_s: float
    total_s: float
    queued_s: float
    error: str = ""


@dataclass
class Contest:
    """Clients of `models`: `FLOOD_CLIENTS` for each of the first `floods`, one with a pause for each of the others."""

    port: int
    key: str
    models: Sequence[str]
    floods: int = FLOODS
    tokens: int = TOKENS
    pause_s: float = 0.2
    seen: list[Waited] = field(default_factory=list)

    def run(self, seconds: float) -> list[Waited]:
        """All requests that began within so many seconds, waited for to their end."""
        until = time.monotonic() + seconds
        clients = [(model, 0.0) for model in self.models[: self.floods] for _ in range(FLOOD_CLIENTS)]
        clients += [(model, self.pause_s) for model in self.models[self.floods :]]
        threads = [
            threading.Thread(target=self._client, args=(number, *one, until), daemon=True)
            for number, one in enumerate(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + 300)
        return self.seen

    def _client(self, number: int, model: str, pause_s: float, until: float) -> None:
        if pause_s:
            time.sleep(min(1.0, pause_s * 5))  # the floods are there first
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        turn = number
        while time.monotonic() < until:
            turn += 1
            try:
                tokens = self.tokens // 2 + (11 * turn + 7 * number) % self.tokens  # or a flood's would end all at once
                self.seen.append(self._ask(connection, model, tokens))
            except (OSError, http.client.HTTPException) as error:
                self.seen.append(Waited(model=model, first_s=0, total_s=0, queued_s=0, error=repr(error)))
                connection.close()
            time.sleep(0.2 if self.seen[-1].error else pause_s)
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, model: str, tokens: int) -> Waited:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "Tell me everything about your shop."}],
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
        }
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        began = time.monotonic()
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        answer.readline()
        first = time.monotonic() - began
        data = answer.read()
        error = "" if answer.status == 200 and data.rstrip().endswith(b"[DONE]") else f"{answer.status} {data[:200]!r}"
        queued_s = float(answer.headers.get("x-graftline-queued-ms", "0")) / 1e3
        return Waited(model=model, first_s=first, total_s=time.monotonic() - began, queued_s=queued_s, error=error)


def bound_s(*, wanted: int, slots: int, turn_s: float, answer_s: float) -> float:
    """The stated bound for requests that fit in one turn of their adapter."""
    return math.ceil(wanted / slots) * (turn_s + answer_s) if wanted > slots else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.starvation", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long the clients keep asking")
    parser.add_argument("--url", default="", help="a gateway that runs already, over an engine with two slots")
    parser.add_argument("--key", default="", help="a key for it")
    parser.add_argument("--model", action="append", default=[], help="its adapters, the floods' first")
    parser.add_argument("--bare-url", default="", help="an engine that runs already, for the contrast")
    parser.add_argument("--bare-model", action="append", default=[], help="the engine's adapters")
    args = parser.parse_args()
    if args.url:
        ours = Contest(_port(args.url), args.key, args.model).run(args.seconds)
        theirs = Contest(_port(args.bare_url), "", args.bare_model).run(args.seconds) if args.bare_url else []
    else:
        ours, theirs = through_us(args.seconds), without_us(args.seconds)
    show("through the gateway", ours)
    if theirs:
        show("bare vLLM", theirs)
    return report(f"{ADAPTERS} adapters, {SLOTS} slots, {FLOODS} floods of {FLOOD_CLIENTS} clients", rows(ours, theirs))


def through_us(seconds: float) -> list[Waited]:
    with stack(engine_max_loras=str(SLOTS)) as running:
        ours = up(running)
        for number, content in enumerate(_contents()):
            told = control.upload(ours, f"adapter-{number}", packed(content), wait_s=120)
            if told.document.get("state") != "verified":
                raise SystemExit(f"adapter-{number} was not taken: {told.status} {told.document}")
        return Contest(ours.port, ours.key, [f"adapter-{n}" for n in range(ADAPTERS)]).run(seconds)


def without_us(seconds: float) -> list[Waited]:
    with stack() as running:
        engine = bare(running, max_loras=SLOTS)
        for number, content in enumerate(_contents()):
            status, said, _ = engine.load(f"adapter-{number}", unpack_into(running.home / f"bare-{number}", content))
            if status != 200:
                raise SystemExit(f"bare vLLM did not load adapter-{number}: {said}")
        return Contest(engine.port, "", [f"adapter-{n}" for n in range(ADAPTERS)]).run(seconds)


def rows(ours: Sequence[Waited], theirs: Sequence[Waited]) -> list[Row]:
    answer_s = max((one.total_s - one.queued_s for one in ours), default=0.0)
    bound = bound_s(wanted=len({one.model for one in ours}), slots=SLOTS, turn_s=TURN_S, answer_s=answer_s)
    failed = [one.error for one in ours if one.error]
    first = max((one.first_s for one in ours), default=0.0)
    formula = f"⌈{ADAPTERS}/{SLOTS}⌉ x ({TURN_S:g} + {answer_s:.2f}) s; {len(ours)} requests"
    waited = max((one.queued_s for one in ours), default=math.inf)
    served = len({one.model for one in ours if not one.error})
    found = [
        Row(name="longest wait for a slot", found=waited, bound=bound, unit="s", note=formula),
        Row(
            name="longest wait for a first token", found=first, bound=bound + answer_s, unit="s", note="by the clients"
        ),
        Row(name="failed requests", found=len(failed), bound=0, note="; ".join(failed[:1])),
        Row(name="adapters served", found=served, bound=ADAPTERS, kind="least"),
    ]
    if theirs:
        usual, bare_usual = _others_usual_s(ours), _others_usual_s(theirs)
        found.append(
            Row(
                name="bare vLLM: the others' usual wait for a first token, times ours",
                found=bare_usual / max(usual, 1e-9),
                bound=TIMES_WORSE,
                kind="least",
                note=f"{bare_usual:.1f} s against {usual:.1f} s; it grows with the floods",
            ),
        )
    return found


def _others_usual_s(seen: Sequence[Waited]) -> float:
    """The middle wait for a first token of the adapters that did not flood."""
    models = sorted({one.model for one in seen})[FLOODS:]
    return percentile([one.first_s for one in seen if one.model in models], 0.5)


def show(title: str, seen: Sequence[Waited]) -> None:
    """Waits of each adapter."""
    print(f"{title}: seconds to the first token, and of them for a slot")
    for model in sorted({one.model for one in seen}):
        mine = [one for one in seen if one.model == model]
        firsts, queued = [one.first_s for one in mine], [one.queued_s for one in mine]
        figures = "  ".join(f"{percentile(firsts, p):7.2f} ({percentile(queued, p):6.2f})" for p in (0.5, 0.95, 1.0))
        print(f"  {model:<12} {len(mine):5d} requests   p50, p95, max: {figures}")


def _contents() -> list[dict[str, bytes]]:
    kept = [files(folder) for folder in markers().values()]
    return [dict(varied(kept[number % len(WORDS)], number)) for number in range(ADAPTERS)]


def _port(url: str) -> int:
    return int(url.rstrip("/").rpartition(":")[2])


if __name__ == "__main__":
    sys.exit(main())
