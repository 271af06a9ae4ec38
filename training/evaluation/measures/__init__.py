"""What answers are worth: each measure one pure function of rows and replies, with its source.

Nothing here asks anybody, and nothing decides. `catalogue.py` lists them; `training/evaluation/compare.py` enters.
"""
