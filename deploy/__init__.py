"""How Graftline gets onto a machine: the set-up that `make` calls, and what runs it elsewhere.

Runs before anything is installed, so it imports the standard library alone, and nothing of the four floors.
"""
