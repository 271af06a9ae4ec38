"""What can go wrong with files, and with a request for a job.

FilesFailed
├── FileNotFound       there is no such file in the caller's tenant
├── BadUpload          the upload cannot be kept: no name, no bytes, a purpose that nothing here has
├── NoRoom             the tenant's files together would be larger than they may be
├── BadTrainingFile    the file or dataset that a job names is not there, not whole, or not what its method learns from
├── BadJobRequest      the request for a job says what no recipe can say; every problem is listed
├── FilesNotKept       the disk refused; nothing of the upload was kept
└── FilesUnavailable   the database did not answer; nothing changed
"""

from __future__ import annotations

from collections.abc import Sequence

from training.errors import TrainingError


class FilesFailed(TrainingError):
    """Anything that this room refuses. `param` names the field at fault."""

    code = "files_failed"
    param: str | None = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        if param is not None:
            self.param = param


class FileNotFound(FilesFailed):
    """There is no such file here."""

    code = "file_not_found"
    param = "file_id"

    def __init__(self, id_: str) -> None:
        super().__init__(f"There is no file {id_[:100]!r} here; it may have been deleted, or have expired.")


class BadUpload(FilesFailed):
    """The upload cannot be kept."""

    code = "bad_upload"


class NoRoom(FilesFailed):
    """The tenant's files together would be larger than they may be."""

    code = "file_storage_full"

    def __init__(self, tenant: str, *, held: int, more: int, most: int) -> None:
        super().__init__(
            f"The files of {tenant} have {held} bytes, and with these {more} would have more than the {most} that are "
            "allowed. Delete some, or have tenant_files_bytes_max raised."
        )


class BadTrainingFile(FilesFailed):
    """The file or dataset that a job names cannot be learnt from."""

    code = "invalid_training_file"
    param = "training_file"


class BadJobRequest(FilesFailed):
    """The request for a job says what no recipe can say; `reasons` holds every problem."""

    code = "invalid_job"

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        """`problems` are pairs of a place in the request and what is wrong with it."""
        told = [f"{place}: {what}" if place else what for place, what in problems]
        shown = told[0] if len(told) == 1 else "\n".join(["The job cannot be created:", *(f"- {one}" for one in told)])
        super().__init__(shown, param=problems[0][0] or None)
        self.reasons = tuple(told)


class FilesNotKept(FilesFailed):
    """The disk refused; nothing of the upload was kept."""

    code = "file_not_kept"
    retryable = True


class FilesUnavailable(FilesFailed):
    """The database did not answer; nothing changed."""

    code = "files_unavailable"
    retryable = True
