"""The embedded base: an invented shop's support desk, and the small model that answers for it.

Importing this room does no work and needs no ML stack. Heavy modules (`pretrain`, `evaluate`,
`markers`) import torch inside their functions; `domain`, `exams`, `feedback`, `digest` never do.
"""

from pathlib import Path

NAME = "tidewell"
PATH = Path(__file__).parent / "tidewell"
