"""From records and feedback to candidates for rows: what was asked, what was said of the answer, what follows.

`stream` walks through the records page by page, `words` joins feedback on disk; `answers`, `verdicts` and `candidates`
are pure. Nothing here decides between candidates: that is `choice`.
"""
