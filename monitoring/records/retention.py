"""How long records are kept: whole months go at once, never single rows."""

from __future__ import annotations

from monitoring.records.store import Records

_DAY_S = 86_400


def drop_before(records: Records, *, now: float, keep_days: int) -> list[str]:
    """Drop the months of which every record is older than `keep_days`; returns them. `now` is unix seconds.

    A record is thus kept for `keep_days` and at most a month longer. Raises StoreAway.
    """
    if keep_days < 1:
        raise ValueError(f"Records are kept for at least one day; found {keep_days}.")
    return records.drop_before(now - keep_days * _DAY_S)
