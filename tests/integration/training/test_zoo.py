"""No false alarms: adapters of every kind that PEFT and TRL make, really trained, pass the static checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.checks.identity import identified
from adapters.checks.modules import BaseModules
from adapters.checks.static import check
from adapters.errors import Rejected
from adapters.limits import Limits
from training.base import NAME, PATH

#: `make hostile` trains the same adapters and takes them through the whole gateway.
pytestmark = [pytest.mark.claim, pytest.mark.filterwarnings("ignore")]

LABELS = {
    "with-other-template": ("other_template",),
    "trl-qlora-nf4": ("other_quantization",),
    "trl-qlora-dpo": ("other_quantization",),
}


def test_good_adapters_of_every_kind_pass_and_are_labelled_for_what_they_are(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="needs the training extra")
    from training.base.zoo import make

    rows = make(tmp_path / "zoo")
    base = BaseModules.read(PATH, identified(PATH, names=(NAME,), digest=""))
    refused, gains = {}, []
    for row in rows:
        try:
            report = check(tmp_path / "zoo" / row.path, base, Limits(rank_max=16))
        except Rejected as error:
            refused[row.name] = str(error)
            continue
        assert report.labels == LABELS.get(row.name, ()), row.name
        gains.append(report.gain)
    assert not refused
    assert len(rows) >= 50
    assert len({row.kind for row in rows}) >= 25
    assert max(gains) < Limits().gain_max / 50  # honest adapters are nowhere near the bound
