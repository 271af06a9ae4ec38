"""Write the corpus: a folder or an archive for each broken adapter, and `manifest.json` with a row for each.

python -m loadtests.corpus --base training/base/tidewell --out DIR

A row: name, kind, path, form (folder or archive), codes (the reasons of which one must refuse it), stage: "static" and
"probe" are refused before a shared engine sees them, "tripwire" passes both, and its `trigger` poisons an engine whose
dtype is `engine_dtype`; `harmless` does not. Names that nobody may have stand in `names.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loadtests.corpus.archives import archives
from loadtests.corpus.configs import configs
from loadtests.corpus.folders import folders
from loadtests.corpus.hidden import hidden
from loadtests.corpus.specimen import Bench, Broken, Shape
from loadtests.corpus.tensors import tensors
from loadtests.corpus.trigger import triggers

#: vLLM takes all of these as names of adapters.
NAMES = ("a,b", "a\nb", 'a"b', "../../etc/passwd", "a" * 3_000, "", ".", "a b", "ä", "a@b", "a:1", "-a", "a/b", "a\0b")


def every() -> Iterator[Broken]:
    """All specimens, in a fixed order."""
    for part in (configs, tensors, folders, archives, hidden, triggers):
        yield from part()


def write(base: Path, out: Path, *, seed: int = 0) -> list[dict[str, Any]]:
    """Make every specimen below the new folder `out`; returns the rows of the manifest."""
    bench = Bench(base=base, shape=Shape.read(base), seed=seed)
    out.mkdir(parents=True)
    rows = []
    for broken in every():
        more = dict(broken.more)
        suffix = more.pop("suffix", "")
        path = f"{broken.name}.{suffix}" if suffix else broken.name
        broken.make(bench, out / path)
        row = {"name": broken.name, "kind": broken.kind, "path": path, "form": broken.form, "stage": broken.stage}
        rows.append({**row, "codes": list(broken.codes), **more})
    (out / "manifest.json").write_text(json.dumps(rows, indent=1) + "\n")
    (out / "names.json").write_text(json.dumps(NAMES, indent=1) + "\n")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description="Write broken adapters of every kind.")
    parser.add_argument("--base", type=Path, required=True, help="The base that they are nearly for.")
    parser.add_argument("--out", type=Path, required=True, help="A new folder.")
    parser.add_argument("--seed", type=int, default=0, help="Decides all numbers.")
    given = parser.parse_args()
    if given.out.exists():
        print(f"{given.out} is already there. Choose another folder.", file=sys.stderr)
        return 2
    rows = write(given.base, given.out, seed=given.seed)
    print(f"{len(rows)} adapters of {len({row['kind'] for row in rows})} kinds in {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
