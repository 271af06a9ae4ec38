"""Floor 4. Serves the OpenAI-compatible endpoint, joins the parts, supervises processes, holds the CLI.

Everything may be imported from here downwards; nothing below imports this floor.
"""
