"""How fast datasets are compiled, and what of it stays in memory: `python -m training.data.bench [--large] [--store]`.

Every record is a chat of one or two turns, every other one with a system prompt, all with a thumb, some with redacted
places; one in ten says nearly what another says. Redaction, template, tokens, near-duplicates, caps, split and Parquet
are in the figure; making the records up is not. `--large` adds a million; `--store` reads them out of SQLite, and that
is in the figure too. Exits with 1 when a bound is missed. One core: CPU seconds of all threads count, the best of three
at the smallest size, for what the machine does besides is not ours.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

import training.base
from monitoring.records.errors import NotFound
from monitoring.records.events import Event, Exposure, Feedback, Inference, from_parts
from monitoring.records.sql import SqlRecords
from training.data.build import Place, build
from training.data.rules import Rules
from training.data.signals.stream import Source
from training.data.template import Template

SIZES = (10_000, 100_000)
LARGE = 1_000_000
PER_S_MIN = 2000.0
INDEX_BYTES_MAX = 300.0
#: What memory may grow besides the index between the smallest size and any other.
SLACK_MIB_MAX = 48.0
_BEGAN_S = 1_790_000_000.0
_APART_S = 2.0
_SYSTEM = "You are the support desk of Tidewell. Answer in one or two plain sentences, and never guess a number."
_THINGS = ("blender", "kettle", "lamp", "toaster", "heater", "mixer", "scale", "fan", "radio", "iron")
_WANTS = (
    "it rattles when I switch it on and the light at the side stays red",
    "the box came without the cable that the picture shows",
    "I would like to know whether it may stand in a damp room",
    "the second one that I ordered has another colour than the first",
    "my neighbour took the parcel in and the seal was already broken",
    "the manual is in a language that nobody in this house reads",
    "it was on offer the day after I had bought it at the full price",
)
_ODD = [
    f"{one}{two}"
    for one in ("am", "ced", "fjor", "her", "jol", "lem", "oc", "quar")
    for two in ("ber", "ish", "ton", "ul")
]
_ENDS = ("Call me on [PHONE] before noon.", "Write to me at [EMAIL].", "", "", "My postcode is SW1A 1AA.", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One size. Memory in MiB is the process's peak since the run began."""

    records: int
    cpu_s: float
    wall_s: float
    rows: int
    tokens: float  # of a row
    index_bytes: float
    peak_mib: float

    @property
    def per_s(self) -> float:
        return self.records / self.cpu_s


class Made:
    """Records that are made up when they are asked for; `cpu_s` is what that took."""

    def __init__(self, records: int) -> None:
        self._records = records
        self.cpu_s = 0.0

    def query(
        self,
        *,
        tenant: str | None = None,
        digest: str | None = None,
        since: float | None = None,
        until: float | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Inference]:
        began = time.process_time()
        first = _number(after) + 1 if after else 0
        page = [_inference(number) for number in range(first, min(first + limit, self._records))]
        self.cpu_s += time.process_time() - began
        return page

    def feedback(
        self,
        *,
        tenant: str | None = None,
        since: float | None = None,
        until: float | None = None,
        after: str | None = None,
        limit: int = 100,
        history: bool = False,
    ) -> list[Feedback]:
        began = time.process_time()
        first = _number(after) + 1 if after else 0
        page = [_thumb(number) for number in range(first, min(first + limit, self._records))]
        self.cpu_s += time.process_time() - began
        return page

    def by_completion(self, completion_id: str, tenant: str) -> Inference:
        raise NotFound(completion_id)

    def exposures(self, experiment: str, *, after: str | None = None, limit: int = 100) -> list[Exposure]:
        return []


def measure(records: int, *, store: bool) -> Measured:
    """Compile `records` for KTO."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        template = Template(training.base.PATH)
        made = Made(records)
        source: Source = _stored(records, root / "records") if store else made
        _reset_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        place = Place(root=root / "datasets", template=template)
        built = build(source, Rules(kind="kto", user_cap=0, tokens_max=512), place)
        rows = sum(part.rows for part in built.manifest.parts.values())
        return Measured(
            records=records,
            cpu_s=time.process_time() - cpu - made.cpu_s,
            wall_s=time.perf_counter() - wall,
            rows=rows,
            tokens=sum(part.tokens for part in built.manifest.parts.values()) / max(rows, 1),
            index_bytes=built.index_bytes / records,
            peak_mib=_peak_mib(),
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="a million records as well; takes ten minutes")
    parser.add_argument("--store", action="store_true", help="read the records out of SQLite")
    parser.add_argument("--sizes", type=int, nargs="*", help="these sizes instead")
    asked = parser.parse_args(arguments)
    sizes = asked.sizes or (*SIZES, *((LARGE,) if asked.large else ()))
    measure(1000, store=False)  # imports, caches
    sys.stdout.write(
        f"{'records':>9}{'rows':>9}{'tokens':>8}{'records/s':>11}{'index B':>9}{'peak MiB':>10}{'growth B':>10}\n"
    )
    missed: list[str] = []
    first: Measured | None = None
    for size in sizes:
        tries = [measure(size, store=asked.store) for _ in range(1 if first else 3)]
        found = min(tries, key=lambda each: each.cpu_s)
        first = first or found
        more = found.records - first.records
        growth = (found.peak_mib - first.peak_mib) * 2**20
        sys.stdout.write(
            f"{found.records:>9}{found.rows:>9}{found.tokens:>8.0f}{found.per_s:>11.0f}{found.index_bytes:>9.0f}{found.peak_mib:>10.0f}"
            f"{growth / more if more else 0:>10.0f}\n"
        )
        sys.stdout.flush()
        missed += _missed(found, growth - more * INDEX_BYTES_MAX)
    sys.stdout.write("".join(f"missed: {each}\n" for each in missed))
    return 1 if missed else 0


def _missed(found: Measured, besides: float) -> Iterator[str]:
    if found.per_s < PER_S_MIN:
        yield f"{found.per_s:.0f} records/s at {found.records}, at least {PER_S_MIN:.0f} wanted"
    if found.index_bytes > INDEX_BYTES_MAX and found.records >= SIZES[0]:
        yield f"index of {found.index_bytes:.0f} bytes a record at {found.records}"
    if besides > SLACK_MIB_MAX * 2**20:
        yield f"memory grew by {besides / 2**20:.0f} MiB besides the index at {found.records}"


def _id(number: int) -> str:
    return from_parts(int((_BEGAN_S + number * _APART_S) * 1000), number & 0xFFF, number)


def _number(record_id: str) -> int:
    return int(record_id.replace("-", ""), 16) & (1 << 62) - 1


def _inference(number: int) -> Inference:
    told = number - number % 10 if number % 10 == 9 else number  # nearly the same as one before it
    thing, want = _THINGS[told % 10], _WANTS[told // 10 % 7]
    order = told * 7919 % 1_000_003
    named = " ".join(_ODD[told * prime // 32 % 32] for prime in (7, 101, 499, 1009, 3001, 9001))
    asked = f"Hello, order {order} was a {thing} called {named}, and {want}. {_ENDS[told % 6]}{'!' * (number - told)}"
    answer = (
        f"Sorry to hear that about the {named} of order {order}. Send it back in 30 days and we pay for the parcel; "
        f"your number for that is {order * 31 % 99991}-{told % 97}."
    )
    said = [{"role": "system", "content": _SYSTEM}] if told % 2 else []
    if told % 4 < 2:
        said.append({"role": "user", "content": f"Is this the desk for the {thing} {told % 1013}?"})
        said.append({"role": "assistant", "content": f"Yes. What is it about the {thing}?"})
    said.append({"role": "user", "content": asked})
    return Inference(
        id=_id(number),
        completion_id=f"chatcmpl-{number}",
        tenant="acme",
        endpoint="chat",
        model="support",
        adapter="support:3",
        digest=f"sha256:{number % 3}",
        started_at=_BEGAN_S + number * _APART_S,
        status=200,
        finish="stop",
        user=f"user-{number // 5}",
        captured="full",
        request=orjson.dumps({"model": "support", "messages": said}).decode(),
        response=orjson.dumps(
            {"id": f"chatcmpl-{number}", "choices": [{"index": 0, "message": {"role": "assistant", "content": answer}}]}
        ).decode(),
    )


def _thumb(number: int) -> Feedback:
    return Feedback(
        id=_id(number),
        at=_BEGAN_S + number * _APART_S + 60,
        tenant="acme",
        target=f"chatcmpl-{number}",
        kind="thumbs",
        rater=f"user-{number // 5}",
        value=1.0 if number % 3 else -1.0,
    )


def _stored(records: int, folder: Path) -> SqlRecords:
    store = SqlRecords(folder)
    for first in range(0, records, 1000):
        numbers = range(first, min(first + 1000, records))
        events: list[Event] = [event for number in numbers for event in (_inference(number), _thumb(number))]
        store.ingest("bench", first + 1000, events)
    return store


def _reset_peak() -> None:
    """Let the kernel forget the peak so far, so that each size has its own."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


if __name__ == "__main__":
    sys.exit(main())
