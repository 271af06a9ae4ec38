"""The simulation study (`make stats`): do the rules that we ship keep what their docstrings promise?

Worlds make data whose truth is known; rows run a rule over thousands of them and compare its error rate with the
nominal one. Nothing of the product imports this.
"""
