"""The bytes of adapters, named by their digest: written once, read only, deleted last.

Never here: what the bytes mean. `local` keeps them in a folder; `archive` unpacks what a stranger sends.
"""

from adapters.artifacts.archive import unpacked
from adapters.artifacts.local import Artifacts, digest_folder

__all__ = ["Artifacts", "digest_folder", "unpacked"]
