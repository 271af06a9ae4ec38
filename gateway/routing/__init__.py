"""From the name a client asked for to the replica that answers: snapshot, resolve, placement.

Decisions are pure; `watcher` and `replicas` fetch what they decide on. No SQL on the request path.
"""
