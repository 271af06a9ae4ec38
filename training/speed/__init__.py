"""How fast we train and compile: our recipes against a plain TRL script, packing against filling, records a second.

`python -m training.speed` measures and says which bound is missed. Nothing here is imported by what serves or trains.
"""
