"""Adapters and whole weights leave as models of their own; what each step did to their words is measured.

`compare` scores before and after, `whole` merges, `packing` quantizes, `export` joins them. All of it is heavy.
Never here: training, or a merge into weights that were packed or have computed anything before.
"""
