"""Rows from files: OpenAI JSONL, TRL rows, Alpaca, ShareGPT, CSV, plain text, Parquet.

`files` reads lines, `formats` says what they mean, `read` walks once and names every bad line by its number. What comes
out goes the same way as what comes from records.
"""
