"""What happened, on its way to the store: drafts from the request path, composed and spooled by a thread of its own.

A record is never waited for by a request, and never lost silently: beyond the buffer it is counted.
"""
