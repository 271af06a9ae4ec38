"""Rows that a teacher model adds to a dataset: other wordings, and answers. Never to evaluation, never unmarked.

`ask` speaks HTTP, `verify` decides what may stay (pure), `teach` makes a new dataset of an old one. Such a row has the
ids, the owner and the split of the row that it was made from.
"""
