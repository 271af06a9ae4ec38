"""Which candidates become rows: near-duplicates, contradictions, caps, splits. On columns, a few hundred bytes a row.

`index` holds the columns, `similar` finds what is alike, `caps` and `split` decide. No text comes here but through
`similar`, and nothing is written.
"""
