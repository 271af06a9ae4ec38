"""Answers that people look at again: which ones and why, who has them now, what was said, how far people agree.

Nothing here speaks HTTP, and no words of people stand in this room's tables: answers and prompts stay in the records,
what reviewers write becomes feedback there. gateway/reviewing.py joins the two.
"""
