"""What happened, as append-only rows: frozen events, the spool each process writes, the ingester, and the stores.

Nothing here decides, learns or speaks HTTP, and nothing here redacts: text arrives redacted (monitoring.safety).
Gateways append to a Spool, the worker runs the Ingester, everyone above reads through `store.Records`.
"""
