"""Replays, against the installed vLLM, every behaviour of the engine that we rely on, and names what changed.

`make engine-check` runs it: a real engine, started as the product starts it, the embedded base, marker adapters.
Nothing of the product enters here; a new reliance on the engine gets its line here first.
"""
