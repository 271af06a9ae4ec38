"""Asks a served model held-out questions and measures its answers, against the base and against the live version.

Talks HTTP to an engine and to a judge; the measures themselves are pure (`measures/`). Nothing here loads a model,
decides whether a version may serve (that is `training/gate`), or knows the registry. Entered by
`python -m training.evaluation`, by `graftline evaluate`, and by the gate for its values.
"""
