"""Floor 2. Which adapters exist, whether they may serve, and who gets which.

No HTTP and no torch here: bytes, rows and decisions only.
"""
