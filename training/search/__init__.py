"""Hyper-parameter search: a recipe, a space of its settings, and trials whose held-out numbers decide.

`space` is pure and says what may be searched; `trial` watches one run, which is a process; `study` asks Optuna what to
try, prunes, and goes on where a search that was killed stopped. Never here: a measure that the search itself can move.
"""
