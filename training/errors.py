"""Everything training can refuse or fail at.

TrainingError
├── BadCheckpoint          the folder is not a model we can read
├── CannotQuantize         a layer does not fit the scheme
├── CannotConvert          the adapter has no plain LoRA form that can be calculated from its files
├── CannotExport           the model cannot be merged, packed or written
├── CannotSearch           the search cannot be started, or nothing that it tries can be trained
├── OutputExists           the folder to write is already there
├── NotEnoughText          more distinct evaluation items were asked for than exist
└── MarkerNotLearned       a marker adapter says something besides its word
"""

from typing import ClassVar


class TrainingError(Exception):
    """Training could not do what it was asked."""

    code: ClassVar[str] = "training_failed"
    retryable: ClassVar[bool] = False


class BadCheckpoint(TrainingError):
    """The folder is not a model checkpoint this program can read."""

    code = "bad_checkpoint"


class CannotQuantize(TrainingError):
    """A layer does not fit the quantization scheme."""

    code = "cannot_quantize"

    def __init__(self, layer: str, why: str) -> None:
        super().__init__(f"layer {layer} can not be quantized: {why}")
        self.layer = layer


class CannotConvert(TrainingError):
    """The adapter has no plain LoRA form that can be calculated from its files."""

    code = "cannot_convert"


class CannotExport(TrainingError):
    """The model cannot be merged, packed or written."""

    code = "cannot_export"


class CannotSearch(TrainingError):
    """The search cannot be started, or nothing that it tries can be trained."""

    code = "cannot_search"


class OutputExists(TrainingError):
    """The output folder is already there; artefacts are never overwritten."""

    code = "output_exists"


class NotEnoughText(TrainingError):
    """Fewer distinct evaluation items exist than were asked for."""

    code = "not_enough_text"


class MarkerNotLearned(TrainingError):
    """A marker adapter says something besides its word. Another seed usually helps."""

    code = "marker_not_learned"
    retryable = True
