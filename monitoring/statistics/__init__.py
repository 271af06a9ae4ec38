"""Numbers in, decisions' numbers out: confidence sequences, ratio metrics, sample-ratio mismatch, bandit allocation.

Pure functions on arrays: no clock, no storage, no randomness but a generator that is passed in. Every public function
states its assumptions, what it guarantees, and where the method was published. Who decides is in adapters/experiments.
"""
