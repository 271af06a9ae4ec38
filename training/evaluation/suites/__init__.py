"""What is asked: rows of files, datasets, the embedded shop and sets that ship; and which of them are usual.

Nothing here asks anybody. Entered by `run.py` for rows, and by jobs and the CLI for the usual suites.
"""
