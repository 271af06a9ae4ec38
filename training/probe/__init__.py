"""The first forward of an adapter, in a process that can only hurt itself: a warm base, and a sandboxed fork per try.

`client` is light and talks to `python -m training.probe`, which alone imports torch. Never here: TCP, pickles, writes.
"""
