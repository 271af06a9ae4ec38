"""Which prober this installation has: an engine by URL, a sandboxed process here, or none."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING

from adapters.checks.probe import Prober
from gateway.engines.quarantine import QuarantineProber
from gateway.engines.vllm import Vllm
from gateway.settings import Settings, SettingsError
from training.probe.client import WarmProber

if TYPE_CHECKING:
    from gateway.control import Base  # which may want a prober itself

_NEEDED = ("torch", "transformers", "peft")


def make_prober(settings: Settings, base: Base) -> Prober | None:
    """`probe_url` wins, since somebody wrote it down; then the training extra; None where there is neither, or with
    `probe = "off"`. Starts and imports nothing. Raises SettingsError."""
    if settings.probe == "off":
        return None
    if settings.probe_url:
        try:
            engine = Vllm("quarantine", settings.probe_url)
        except ValueError as error:
            raise SettingsError(f"probe_url cannot be used: {error}") from error
        return QuarantineProber(engine, vocabulary=_vocabulary(base), timeout_s=settings.probe_timeout_s)
    if any(find_spec(name) is None for name in _NEEDED):
        return None
    return WarmProber(
        base.folder,
        settings.logs / "probe.log",
        timeout_s=settings.probe_timeout_s,
        memory_gib=settings.probe_memory_gib,
        idle_s=settings.probe_idle_s,
    )


def _vocabulary(base: Base) -> int:
    try:
        config = json.loads((base.folder / "config.json").read_bytes())
        return int(config.get("text_config", config)["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{base.folder}/config.json does not say the base's vocab_size.") from error
