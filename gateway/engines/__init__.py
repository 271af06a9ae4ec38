"""Engines: the HTTP client of vLLM, how vLLM is started and supervised here, and a scripted fake that ships.

`vllm.py` is the only file that knows vLLM's HTTP; nothing here knows clients, keys, aliases or experiments.
The pipeline, the fleet and the CLI may enter. `plugin.py` runs inside the engine's own process.
"""
