"""A repository of the hub, through huggingface_hub. A revision is turned into its commit first: what is registered is
what that commit holds, whatever the branch says later."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, errors, hf_hub_download

from adapters.errors import AdapterError, BadSource, HubOffline, SourceUnavailable, TooLarge, shown
from adapters.sources.rules import Meter, SourceRules
from adapters.sources.spelling import COMMIT, Hub

_TIMEOUT_S = 30.0
#: What the library's HTTP client raises: a class of another package in another major version.
_NETWORK: type[Exception] = next(kind for kind in errors.HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
#: What a training run leaves beside its adapter and no engine reads. Anything else odd is fetched, and then refused.
_LEFTOVERS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth", "trainer_state.json")


def resolve(hub: Hub, rules: SourceRules) -> Hub:
    """The same repository at the commit that the revision names now.

    Raises BadSource, SourceUnavailable, HubOffline.
    """
    if COMMIT.fullmatch(hub.revision):
        return hub
    commit, _ = _look(hub, rules)
    return Hub(repo=hub.repo, revision=commit)


def download(hub: Hub, folder: Path, rules: SourceRules, meter: Meter) -> None:
    """Write the repository's own files, not those in its folders, into `folder`."""
    commit, files = _look(hub, rules)
    if commit != hub.revision:
        raise BadSource(f"hub:{hub.repo} answered with commit {shown(commit)}, and not with {hub.revision}.")
    if len(files) > rules.limits.files_max:
        raise TooLarge(f"hub:{hub.repo} holds {len(files)} files; {rules.limits.files_max} are allowed.")
    meter.expect(sum(files.values()))
    bar = _bar(meter)
    with _translated(hub):
        for name in sorted(files):
            hf_hub_download(
                hub.repo,
                name,
                revision=commit,
                local_dir=folder,
                endpoint=rules.hub_endpoint,
                etag_timeout=_TIMEOUT_S,
                tqdm_class=bar,
            )
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the library's own notes
    size = sum(path.lstat().st_size for path in folder.iterdir())
    if size > rules.limits.bytes_max:
        raise TooLarge(f"hub:{hub.repo} holds {size} bytes; {rules.limits.bytes_max} are allowed.")


def upload(folder: Path, hub: Hub, *, endpoint: str, private: bool = True) -> str:
    """Put the files of a folder into a repository, made (private) if it is not there; returns the commit."""
    api = HfApi(endpoint=endpoint, library_name="graftline")
    with _translated(hub):
        api.create_repo(hub.repo, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=hub.repo, folder_path=folder, revision=hub.revision, commit_message="Exported by graftline"
        )
    return str(done.oid)


def _look(hub: Hub, rules: SourceRules) -> tuple[str, dict[str, int]]:
    """The commit of the revision, and its top-level files with their sizes."""
    with _translated(hub):
        api = HfApi(endpoint=rules.hub_endpoint, library_name="graftline")
        info = api.model_info(hub.repo, revision=hub.revision, files_metadata=True, timeout=_TIMEOUT_S)
    commit = info.sha or ""
    if not COMMIT.fullmatch(commit):
        raise SourceUnavailable(f"hub:{hub.repo} named no commit for {shown(hub.revision)}.")
    files: dict[str, int] = {}
    for entry in info.siblings or ():
        name = entry.rfilename
        if "/" in name or name in _LEFTOVERS:
            continue
        if not name.isprintable() or name in (".", "..", ".cache") or "\\" in name or len(name.encode()) > 128:
            raise BadSource(f"hub:{hub.repo} holds {shown(name)}, which is no plain file name.")
        files[name] = entry.size or 0
    if not files:
        raise BadSource(f"hub:{hub.repo} holds no file at {shown(hub.revision)}.")
    return commit, files


def _bar(meter: Meter) -> Any:
    """What the library believes to be a progress bar: it counts, and stops the transfer by raising."""

    class Bar:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.total = kwargs.get("total")

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *exc: object) -> None:
            self.close()

        def update(self, n: float | None = 1) -> None:
            meter.count(int(n or 0))

        def close(self) -> None:
            """Nothing is drawn here."""

        refresh = close

        def set_description(self, *args: Any, **kwargs: Any) -> None:
            """Nothing is drawn here."""

        set_description_str = set_postfix_str = set_description

    return Bar


@contextmanager
def _translated(hub: Hub) -> Iterator[None]:
    where = f"hub:{hub.repo}@{hub.revision}"
    try:
        yield
    except AdapterError:
        raise
    except errors.OfflineModeIsEnabled as error:
        raise HubOffline(
            f"{where} was not fetched: HF_HUB_OFFLINE keeps this process off the hub. Upload an archive, or unset it."
        ) from error
    except errors.GatedRepoError as error:
        raise BadSource(f"{where} is gated, and this process's HF_TOKEN has no access to it.") from error
    except errors.RepositoryNotFoundError as error:
        raise BadSource(f"{where} is not there, or this process's HF_TOKEN may not see it.") from error
    except (errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError, errors.HFValidationError) as error:
        raise BadSource(f"{where} is not there: {_first_line(error)}") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (400, 401, 403):
            raise BadSource(f"{where} was refused with {status}: {_first_line(error)}") from error
        raise SourceUnavailable(f"{where} could not be reached: the hub answered {status}.") from error
    except (_NETWORK, OSError, ValueError) as error:
        raise SourceUnavailable(f"{where} could not be reached: {type(error).__name__}.") from error


def _first_line(error: Exception) -> str:
    return shown(str(error).strip().partition("\n")[0], quote=False)


__all__ = ["download", "resolve", "upload"]
