"""What a build made, as a text and as a document: counts, balance, lengths, clusters, examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from training.data.manifest import Manifest
from training.data.reasons import MEANS, Reason
from training.data.values import SPLITS

_SHOWN = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens of one split's rows."""

    median: int
    p90: int
    p99: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Questions that are one but for their numbers."""

    rows: int
    question: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    digest: str
    manifest: Manifest
    lengths: Mapping[str, Lengths]
    clusters: Sequence[Cluster]
    routes: Mapping[str, int]
    examples: Sequence[Mapping[str, Any]]
    left: Mapping[str, Sequence[str]]  # ids of the first few, by reason

    def document(self) -> dict[str, Any]:
        made = asdict(self)
        made.pop("manifest")
        return {"object": "dataset.report", "manifest": self.manifest.document(), **made}

    def text(self) -> str:
        """Plain lines, aligned."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        made = self.manifest
        yield f"dataset {self.digest}"
        yield f"kind {made.kind} from {made.origin}; template {made.template or 'none'}; base {made.base or 'unknown'}"
        yield "seen: " + ", ".join(f"{count} {name}" for name, count in made.seen.items())
        yield ""
        yield f"{'':12}{'rows':>9}{'tokens':>12}{'median':>9}{'p90':>7}{'p99':>7}{'most':>7}"
        for split in SPLITS:
            part, long = made.parts[split], self.lengths[split]
            yield (f"{split:12}{part.rows:>9}{part.tokens:>12}{long.median:>9}{long.p90:>7}{long.p99:>7}{long.most:>7}")
        if made.classes:
            yield ""
            yield "balance: " + ", ".join(f"{name} {value:g}" for name, value in made.classes.items())
        yield from self._table("routes", self.routes)
        yield from self._table("answers by policy", made.policies)
        yield from self._table("answers by arm", made.arms)
        yield from self._excluded("left", made.left)
        yield from self._excluded("words that came to nothing", made.words_left)
        if self.clusters:
            yield ""
            yield "largest clusters"
            yield from (f"{each.rows:>9}  {_short(each.question)}" for each in self.clusters)
        for example in self.examples:
            yield ""
            yield "example"
            yield from (f"  {name}: {_short(str(value))}" for name, value in example.items())
        yield ""
        yield "shared by both splits: " + ", ".join(f"{count} {name}" for name, count in made.leaks.items())
        yield from (f"warning: {each}" for each in made.warnings)

    def _excluded(self, title: str, counts: Mapping[str, int]) -> Iterator[str]:
        if counts:
            yield ""
            yield title
            for name, count in counts.items():
                some = ", ".join(self.left.get(name, ()))
                yield f"{count:>9}  {name}: {MEANS[Reason(name)]}" + (f" ({some})" if some else "")

    def _table(self, title: str, counts: Mapping[str, int]) -> Iterator[str]:
        if any(counts):
            yield ""
            yield title
            yield from (f"{count:>9}  {name or '(none)'}" for name, count in counts.items())


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN else flat[: _SHOWN - 1] + "…"
