"""What must hold before any engine sees an adapter: files, config, shapes, the base's real modules, numbers.

Never here: torch, an engine, a row. Every check reports all that it finds, as typed reasons.
"""

from adapters.checks.modules import BaseModules, Module
from adapters.checks.static import CheckReport, check

__all__ = ["BaseModules", "CheckReport", "Module", "check"]
