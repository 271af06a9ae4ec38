"""Processes on this machine: how vLLM is started here, and how any child is kept running, drained and stopped.

`launch`, `flags` and `devices` decide an engine's command line; `supervisor` keeps children, each under a `keeper`.
Nothing here speaks HTTP. Only `graftline up`, `doctor` and the conformance run come in; `alone` is a program by itself.
"""
