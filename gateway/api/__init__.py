"""HTTP: bytes in, a `Call` out; an answer or an error back. Decides nothing about models, keys or replicas."""
