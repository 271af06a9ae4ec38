"""Why a run cannot be published.

TrainingError
└── PublishingError
    ├── CannotPublish   what stands in the run's folder may not leave
    └── NoPlot          matplotlib is not installed
"""

from training.errors import TrainingError


class PublishingError(TrainingError):
    """A run could not be published."""

    code = "publishing_failed"


class CannotPublish(PublishingError):
    """What stands in the run's folder may not leave."""

    code = "cannot_publish"


class NoPlot(PublishingError):
    """matplotlib is not installed."""

    code = "no_plot"
