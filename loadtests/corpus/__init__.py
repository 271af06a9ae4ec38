"""Broken adapters, byte by byte, of every kind we know of; and the reason by which each must be refused.

Black box like all of `loadtests`: numpy and the standard library, no floor, no torch. Who breaks the checks' rules must
not share their code.
"""
