"""How a child process shares the processors with its neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

#: What the environment of an engine or a training begins with, for GNU's and for Intel's OpenMP: threads sleep while
#: they wait for each other. Beside an engine one of a training's is often not running, and the others would spin until
#: it is: that was seen to take nine tenths of its processor time, with steps thirty times as long.
CALM: Final[Mapping[str, str]] = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}


def yield_to_others(pid: int, nice: int) -> None:
    """Let the session that `pid` leads stand back for other sessions, by a nice value of 0 to 19.

    Linux shares processors between sessions first (autogroups). Without our plugin vLLM's processes spin while they
    wait for each other, and on a small machine a gateway of another session was seen to wait 0.8 s for its turn, a
    whole stream long, whatever its own nice value. Nothing happens where the kernel has no autogroups: there is nothing
    to mend there.
    """
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(f"{nice}\n")
