"""What keeps words from doing harm: today, the redaction of personal data and secrets by pattern.

Nothing here stores or forwards text; whoever writes words anywhere calls `redact` first. Names and street addresses are
not found: that takes a model.
"""
