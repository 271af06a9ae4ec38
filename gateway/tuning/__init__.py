"""Where jobs live here: what a runner (`training.jobs`) needs of this installation, joined from control and settings.

Nothing here trains, decides or loads adapters. Only the worker and the CLI come in.
"""
