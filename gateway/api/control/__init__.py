"""The control plane over HTTP: models, adapters, keys. FastAPI, in threads, off the hot path.

Each route calls the function that the CLI verb of the same name calls.
"""
