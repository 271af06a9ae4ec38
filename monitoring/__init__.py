"""Floor 1. What happened and what it means: records, statistics, metrics, drift, safety, alerts.

Imports no other floor of the house.
"""
