"""What is counted while serving: every metric declared once, kept in shared memory, rendered on scrape.

Nothing here decides or alerts, and a metric exists only if names.py declares it. Any process may open a `Metrics` of
its own; any process may render all of them.
"""
