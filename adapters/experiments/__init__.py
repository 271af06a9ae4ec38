"""Who gets which version, and what follows from it: assignment, ramp, analysis, decision, each pure; rows beside them.

Nothing here routes or measures: the gateway asks for an arm, the worker for a decision, and both pass in what they saw.
"""
