"""Desired state → every engine: what it should hold is probed, staged, loaded, proved, watched and taken off again.

Runs in one worker at a time. Nothing else calls an engine's load and unload; gateways only read what is reported here.
"""

from gateway.engines.fleet.fleet import Fleet
from gateway.engines.fleet.means import Means, Terms

__all__ = ["Fleet", "Means", "Terms"]
