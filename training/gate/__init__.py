"""The gate: may what was trained serve? `decide` is pure; `ruling` asks what it needs and tells the registry.

Never here: an engine's start, training, evaluation. Entered by jobs, and by tests that sabotage data.
"""
