"""Objects of a bucket, through s3fs (extra `s3`). Where the bucket lies and who asks is the environment's to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapters.errors import BadSource, MissingExtra, SourceUnavailable, TooLarge, shown
from adapters.sources.rules import Meter, SourceRules
from adapters.sources.spelling import ARCHIVES, Bucket

_CONNECT_S = 10
_READ_S = 30
_CHUNK = 1 << 20
_BLOCK = 8 << 20


def is_archive(source: Bucket) -> bool:
    return source.key.lower().endswith(ARCHIVES)


def download(source: Bucket, folder: Path, rules: SourceRules, meter: Meter) -> Path:
    """Write the archive, or every object directly below the key, into `folder`; returns the archive or the folder.

    Raises BadSource, TooLarge, SourceUnavailable, MissingExtra.
    """
    s3 = _open()
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    where = f"s3://{source.bucket}/{source.key}"
    try:
        objects = _objects(s3, source, rules)
        meter.expect(sum(size for _, size in objects))
        for name, _ in objects:
            key = source.key if is_archive(source) else f"{source.key}/{name}"
            _copy(s3, f"{source.bucket}/{key}", folder / name, meter)
    except FileNotFoundError as error:
        raise BadSource(f"{where} is not there.") from error
    except PermissionError as error:
        raise BadSource(
            f"{where} may not be read with the credentials in this process's environment ({error})."
        ) from error
    except (BotoCoreError, ClientError, OSError, TimeoutError) as error:
        raise SourceUnavailable(f"{where} could not be read: {shown(str(error), quote=False)}") from error
    finally:
        s3.close_session(s3.loop, s3.s3)
    return folder / "archive" if is_archive(source) else folder


def _open() -> Any:
    import fsspec

    times = {"connect_timeout": _CONNECT_S, "read_timeout": _READ_S, "retries": {"max_attempts": 3}}
    try:
        # A new one each time: the environment may have changed, and so may what a listing said before.
        return fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False, config_kwargs=times)
    except ImportError as error:
        raise MissingExtra(f"S3 needs the extra 's3' ({error}). Install it: pip install 'graftline[s3]'.") from error


def _objects(s3: Any, source: Bucket, rules: SourceRules) -> list[tuple[str, int]]:
    """(file name, size) of what is to be copied; one page of the listing is more than an adapter has."""
    most = rules.limits.files_max + 2
    whole = is_archive(source)
    prefix = source.key if whole else f"{source.key}/"
    page = s3.call_s3("list_objects_v2", Bucket=source.bucket, Prefix=prefix, Delimiter="/", MaxKeys=most)
    found = [(str(entry["Key"])[len(prefix) :], int(entry["Size"])) for entry in page.get("Contents", ())]
    if whole:
        found = [("archive", size) for name, size in found if not name]
    else:
        found = [(name, size) for name, size in found if name]  # the marker of the folder itself is no file
        if page.get("CommonPrefixes"):
            raise BadSource(f"s3://{source.bucket}/{prefix} holds folders. Name the one that holds the adapter.")
    if not found:
        raise BadSource(f"s3://{source.bucket}/{prefix} holds nothing. Name an archive or the prefix of the files.")
    if len(found) > rules.limits.files_max:
        raise TooLarge(f"s3://{source.bucket}/{prefix} holds more than {rules.limits.files_max} files.")
    for name, _ in found:
        if not name.isprintable() or name in (".", "..") or "\\" in name or len(name.encode()) > 128:
            raise BadSource(f"s3://{source.bucket}/{prefix} holds {shown(name)}, which is no plain file name.")
    return found


def _copy(s3: Any, key: str, path: Path, meter: Meter) -> None:
    with s3.open(key, "rb", block_size=_BLOCK, cache_type="readahead") as content, path.open("xb") as file:
        while chunk := content.read(_CHUNK):
            meter.count(len(chunk))
            file.write(chunk)
