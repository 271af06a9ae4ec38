"""Files that clients send to learn from, and get results in: rows, bytes on disk, and what their lines are good for.

Light: the gateway imports it. Nothing here tokenises or trains; a file becomes a dataset or a recipe's rows elsewhere.
"""
