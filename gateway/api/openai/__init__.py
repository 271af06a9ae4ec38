"""The OpenAI-compatible inference endpoints: which fields pass, how answers and errors look on the wire.

Nothing here imports pydantic or touches SQL: this is the hot path.
"""
