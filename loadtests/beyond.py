"""What happens with one adapter more than the engine can hold: a part of `make thousand` on a small engine.

An engine frees no place before a restart. So of those that wait, what the kept room takes comes at once when others are
retired, and the rest after the restart, for which a lone engine must have been asked nothing for a minute.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping

from loadtests import control
from loadtests.markers import WORDS, packed, spoken, varied
from loadtests.report import Row
from loadtests.stack import Up, call, stack, up
from loadtests.traffic import Traffic

ROOM = 12  # what the engine holds
KEPT = ROOM // 4  # what the gateway keeps free of it for what is on its way in
MORE = KEPT + 1


def beyond_the_bound(marker: Mapping[str, bytes]) -> list[Row]:
    """Fill an engine of `ROOM` adapters, then send `MORE`; retire as many, and see those take their places."""
    with stack(engine_max_loras="4", engine_max_cpu_loras=str(ROOM), adapter_wait_s="1") as running:
        ours = up(running)
        names: list[str] = []
        waiting: list[str] = []
        for number in range(ROOM + MORE):
            name = f"room-{number}"
            answer = control.upload(
                ours, name, packed(varied(marker, 50_000 + number)), wait_s=20 if not waiting else 2
            )
            (names if answer.document.get("state") == "verified" else waiting).append(name)
            if len(waiting) == MORE:
                break
        told = [control.versions(ours, name)[-1] for name in waiting]
        codes = [Traffic(ours.port, ours.key, _body(name)).once({}) for name in waiting]
        with Traffic(ours.port, ours.key, _body(""), clients=4, pick=_turns(names)) as traffic:
            traffic.wait(4 * len(names))
            for name in names[:MORE]:
                call("DELETE", f"{ours.url}/v1/models/{name}", None, ours.key)
            soon = _until_verified(ours, waiting, KEPT, timeout_s=60)
        come = _until_verified(ours, waiting, MORE, timeout_s=240)
        left = [Traffic(ours.port, ours.key, _body(name)).once({}) for name in names[MORE:]]
        failed = [one for one in traffic.seen if not one.good and one.model not in names[:MORE]]
        failed += [one for one in left if not one.good]
        wrong = [one for one in [*traffic.seen, *left] if one.good and one.text != spoken(WORDS[0])]
        listed = len(control.engine_adapters(ours))
        restarts = ours.child("engine")["restarts"]
    states = sorted({str(one["state"]) for one in told})
    untyped = [one.error for one in codes if one.status not in (404, 503) or one.good]
    return [
        Row(name=f"an engine with room for {ROOM}: adapters verified", found=len(names), bound=1, kind="least"),
        Row(name="  beyond it: registered, and waiting for room", found=len(told), bound=MORE, kind="least",
            note=f"{', '.join(states)}; {told[0].get('waiting') or told[0].get('note') if told else ''}"),
        Row(name="  requests for those answered otherwise than by a typed 503", found=len(untyped), bound=0,
            note=", ".join(sorted({f"{one.status} {one.error}" for one in codes}))),
        Row(name="  failed or wrong requests for the others", found=len(failed) + len(wrong), bound=0,
            note=f"of {len(traffic.seen)}; {failed[:1] or wrong[:1] or ''}"),
        Row(name="  served once others were retired, while all are asked", found=soon, bound=KEPT, kind="least"),
        Row(name="  and once the engine was idle for a minute", found=come, bound=MORE, kind="least"),
        Row(name="  adapters on the engine at the end", found=listed, bound=ROOM),
        Row(name="  engine restarts", found=restarts, bound=1, note="one is allowed: a replica whose cache is used up"),
    ]  # fmt: skip


def _until_verified(ours: Up, names: list[str], wanted: int, *, timeout_s: float) -> int:
    """How many of `names` answer in their own words when `wanted` do, or when time is over."""
    until = time.time() + timeout_s
    served: set[str] = set()
    while len(served) < wanted and time.time() < until:
        for name in set(names) - served:
            if Traffic(ours.port, ours.key, _body(name)).once({}).text == spoken(WORDS[0]):
                served.add(name)
        time.sleep(0.5)
    return len(served)


def _turns(names: list[str]) -> Callable[[], Mapping[str, object]]:
    turn = itertools.cycle(names)
    return lambda: {"model": next(turn)}


def _body(model: str) -> dict[str, object]:
    message = {"role": "user", "content": "When are you open?"}
    return {"model": model, "messages": [message], "temperature": 0, "max_tokens": 12}
