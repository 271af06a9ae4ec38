"""What leaves a run: an adapter with its lineage, its curves with a verdict, its results, and its row in the registry.

Never here: training, gates. Entered by jobs and by `graftline train`. matplotlib is imported in `plot` only.
"""
