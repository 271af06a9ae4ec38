"""Adapters that nobody trained as they are: merged from others, converted from other methods, trained further."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from training.base.zoo_kinds import EVERY, Kind
from training.base.zoo_training import Lesson, continued, grown, mixed, taught

#: PEFT's ways to make one adapter of two. `cat` adds the ranks.
_WAYS = ("cat", "linear", "svd", "ties", "dare_linear", "magnitude_prune")


def merged(school: Lesson, out: Path) -> Iterator[tuple[str, str, str]]:
    """Every specimen of this file."""
    from training.convert import convert

    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        first = Kind(kind="", fields={"r": 4, "lora_alpha": 8, "target_modules": list(EVERY)})
        taught(school, first, scratch / "first")
        taught(school, first, scratch / "second", seed=1)
        for way in _WAYS:
            mixed(school, (scratch / "first", scratch / "second"), way, out / f"merged-{way.replace('_', '-')}")
            yield f"merged-{way.replace('_', '-')}", "merged", f"two adapters, {way}"
        continued(school, scratch / "first", out / "continued")
        yield "continued", "trained further", "SFT on a trained adapter"
        dora = Kind(kind="", fields={"use_dora": True, "target_modules": list(EVERY)})
        taught(school, dora, scratch / "dora")
        convert(scratch / "dora", out / "converted-dora", base=school.base, rank=16)
        yield "converted-dora", "converted", "DoRA, by graftline convert"
        for method in ("LoHa", "LoKr"):
            grown(school, method, out / f"converted-{method.lower()}")
            yield f"converted-{method.lower()}", "converted", f"{method}, by peft.save_as_lora"
