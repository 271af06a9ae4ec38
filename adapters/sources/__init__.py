"""Where adapters come from: a folder, an archive, a bucket, a web host or a hub, brought here as one flat folder.

What is brought is a stranger's: counted and measured while it arrives, under rules that the operator sets. Never here:
whether it is a good adapter. No credential is read, kept or told; libraries take theirs from the environment.
"""

from adapters.sources.fetch import fetched, pinned
from adapters.sources.rules import SourceRules
from adapters.sources.spelling import told

__all__ = ["SourceRules", "fetched", "pinned", "told"]
