"""Who signs what is trained here. Whether that can be done is found out by a trial, before anything is trained: a key
that nobody can use would otherwise cost the training that is to be published with it."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from adapters.errors import AdapterError
from adapters.signing import sign
from gateway.control import make_signatures
from gateway.settings import Settings, SettingsError
from training.jobs.errors import JobRefused
from training.publishing.publish import Sign
from training.recipes.recipe import Recipe


def make_sign(settings: Settings) -> Sign | None:
    """Who signs an adapter's folder before it is registered; None where nobody does."""
    return None if settings.signing_key is None else partial(sign, key=settings.signing_key)


def try_signing(settings: Settings) -> None:
    """Sign a folder and verify it as registration will. Raises BadSignature for a key that cannot sign or that
    `signing_keys` does not know, NoSigning, and Unavailable for a key that cannot be read now."""
    if (signing := make_sign(settings)) is None:
        return
    with tempfile.TemporaryDirectory(prefix="graftline-signing-") as scratch:
        folder = Path(scratch)
        (folder / "trial").write_text("signed and thrown away\n")
        signing(folder)
        make_signatures(settings).verify(folder)


def check_signing(settings: Settings) -> None:
    """The trial of a worker that starts. Raises SettingsError."""
    if not settings.jobs:
        return
    try:
        try_signing(settings)
    except AdapterError as error:
        raise SettingsError(
            f"signing_key = {str(settings.signing_key)!r} cannot sign what is trained here: {error} Set it to a "
            "private key whose public half `signing_keys` names, or leave it out: then what is trained stays unsigned."
        ) from error


def refuse_unsigned(settings: Settings, recipe: Recipe) -> None:
    """Whether what a recipe makes will be signed as this installation asks for. Raises JobRefused."""
    if settings.signing == "required" and settings.signing_key is None and recipe.method != "reward":
        raise JobRefused(
            'Only signed adapters are taken here (signing = "required"), and what is trained here is not signed: '
            "`signing_key` names no private key. Set it, with its public half among `signing_keys`, restart the "
            "worker, and create the job again.",
            code="no_signing_key",
        )
