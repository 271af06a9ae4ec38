"""Launchers: where a run's process runs (here, on Ray) and what its command is (one process, or several by accelerate).

`values`, `command`, `section`, `local`, `ray` and `repeat` are light; `world` and `rehearsal` import torch inside their
functions. Nothing here knows jobs: who starts a run, watches it and decides what follows is `training.jobs`.
"""
