"""Experiments where they meet the rest: opened and stopped, looked at by the worker, told to people.

What is decided, and on which numbers, stands in `adapters/experiments`; nothing here judges a result. Routes and verbs
enter by `opening`, the worker by `duties`.
"""
