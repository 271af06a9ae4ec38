"""The dataset compiler: records and what was said of them, or files, become versioned rows to learn from.

`build` joins the parts; `signals` reads records, `imports` reads files, `choice` decides what stays. Light, except
`template` (transformers) and `parquet` (pyarrow). Never here: training, or a row that leaves without a reason.
"""
