"""Who calls, what they may do, and how much: keys, roles, tenants, quotas.

Nothing here speaks HTTP, sees a prompt, or waits: the request path does one hash, one look-up and memory writes.
A secret is never kept; only its sha256 is. The pipeline and the key routes come in; nobody else.
"""
