"""What may be said of an answer, checked before it becomes an event. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from gateway.access.errors import Forbidden
from gateway.access.keys import Capture, Key, Role
from gateway.errors import BadField, TooLarge
from monitoring.records.events import Inference

TargetKind: TypeAlias = Literal["completion", "conversation"]
Kind: TypeAlias = Literal["thumbs", "scalar", "comment", "correction", "preference", "implicit"]
RaterKind: TypeAlias = Literal["user", "reviewer", "judge", "system"]
Source: TypeAlias = Literal["api", "sdk", "review"]

NAME_CHARS_MAX = 512
TEXT_CHARS_MAX = 64 << 10
HAPPENED = ("copied", "regenerated", "abandoned")
#: Metadata keys of a stored completion that begin so are feedback.
RESERVED = "feedback."

_SCALAR = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
_NUMBER = re.compile(r"[+-]?\d{1,18}(?:\.\d{1,18})?")
_THUMBS = {"up": 1.0, "1": 1.0, "+1": 1.0, "down": -1.0, "-1": -1.0, "0": 0.0}
#: (needed, allowed as well) of each kind.
_FIELDS: Mapping[Kind, tuple[frozenset[str], frozenset[str]]] = {
    "thumbs": (frozenset({"value"}), frozenset()),
    "scalar": (frozenset({"name", "value"}), frozenset()),
    "comment": (frozenset({"text"}), frozenset()),
    "correction": (frozenset({"text"}), frozenset()),
    "preference": (frozenset({"other"}), frozenset()),
    "implicit": (frozenset({"name"}), frozenset({"value"})),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One thing that somebody says, as they say it. `taken_back`: what they said before does not hold."""

    target: str
    target_kind: TargetKind = "completion"
    kind: Kind
    name: str = ""
    value: float | None = None
    taken_back: bool = False
    text: str | None = None
    other: str | None = None
    rater: str = ""
    rater_kind: RaterKind = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """Who hands words in, and for which tenant; the CLI has no key and may do everything."""

    tenant: str
    key_id: str = ""
    engineer: bool = True
    capture: Capture = "full"


def speaker(key: Key) -> Speaker:
    return Speaker(tenant=key.tenant, key_id=key.id, engineer=Role.ENGINEER in key.roles, capture=key.capture)


def checked(word: Word, speaker: Speaker, where: str = "") -> Word:
    """The word as it may be kept. `where` stands before the field's name in errors: `items.3.`.

    Raises BadField, TooLarge, and Forbidden for a rater that only engineers may speak for.
    """
    needed, more = _FIELDS[word.kind]
    given = _given(word)
    for name in sorted(given - needed - more):
        raise BadField(f"'{word.kind}' takes no {name!r}; say it in an item of its own.", param=where + name)
    for name in sorted(needed - given):
        raise BadField(f"'{word.kind}' needs {name!r}.", param=where + name, code="missing_required_parameter")
    for name in ("target", "rater", "other", "name", "text"):
        spelled(getattr(word, name) or "", where + name)
    for name, text in (("target", word.target), ("rater", word.rater), ("other", word.other)):
        if text is not None and len(text) > NAME_CHARS_MAX:
            raise BadField(f"{name!r} may have {NAME_CHARS_MAX} characters; found {len(text)}.", param=where + name)
    if not word.target.strip():
        raise BadField("'target' is empty; name a completion or a conversation.", param=where + "target")
    if word.rater_kind != "user" and not speaker.engineer:
        raise Forbidden([Role.USER], [Role.ENGINEER])
    _check_text(word, speaker, where)
    if word.kind in ("correction", "preference") and word.target_kind != "completion":
        raise BadField(f"'{word.kind}' is of a completion, not of a conversation.", param=where + "target_kind")
    if word.other == word.target:
        raise BadField("'other' is the target itself.", param=where + "other")
    if word.kind == "scalar" and not _SCALAR.fullmatch(word.name):
        raise BadField(
            "A scalar's name is 1 to 64 letters, digits and _ . : - and begins with a letter or digit; "
            f"found {word.name[:64]!r}.",
            param=where + "name",
        )
    if word.kind == "implicit" and word.name not in HAPPENED:
        raise BadField(f"'name' is one of {', '.join(HAPPENED)}; found {word.name[:64]!r}.", param=where + "name")
    return _valued(word, where)


def spelled(text: str, param: str) -> None:
    """Raises BadField for half a surrogate pair: it is JSON, and no text that can be kept."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadField(f"{param!r} is not Unicode text.", param=param) from None


def _given(word: Word) -> set[str]:
    given = {name for name in ("name", "text", "other") if getattr(word, name)}
    return given | {"value"} if word.value is not None or word.taken_back else given


def _check_text(word: Word, speaker: Speaker, where: str) -> None:
    if not word.text:
        return
    if len(word.text) > TEXT_CHARS_MAX:
        raise TooLarge(f"'text' may have {TEXT_CHARS_MAX} characters; found {len(word.text)}.", param=where + "text")
    if not word.text.strip():
        raise BadField(f"'{word.kind}' needs a 'text' that says something.", param=where + "text")
    if speaker.capture != "full":
        raise BadField(
            f"This key's records keep no text (capture: {speaker.capture}), so a {word.kind} would be lost. Send "
            "thumbs, scalars or preferences, or use a key with capture: full.",
            param=where + "text",
            code="text_not_captured",
        )


def _valued(word: Word, where: str) -> Word:
    value = word.value
    if value is not None and not math.isfinite(value):
        raise BadField(f"'value' must be a finite number; found {value}.", param=where + "value")
    if word.kind == "thumbs" and value not in (None, -1, 0, 1):
        raise BadField(
            f"A thumb's 'value' is 1 (up), or 0 or -1 (down), or null to take it back; found {value}.",
            param=where + "value",
        )
    if word.kind == "implicit":
        if value not in (None, 0, 1):
            raise BadField(
                f"What happened has the value 1, or 0 to take it back; found {value}.", param=where + "value"
            )
        return replace(word, value=0.0 if word.taken_back else value)
    return word


def mirrored(event: Inference, metadata: Mapping[str, str]) -> list[Word]:
    """What replacing a stored completion's metadata says of it: each reserved key that is new or changed, and thumbs,
    scalars and events that are there no more and so are taken back. Raises BadField for a reserved key or value that
    says nothing."""
    before = event.metadata
    words = [
        _word(event, key, text)
        for key, text in metadata.items()
        if key.startswith(RESERVED) and before.get(key) != text
    ]
    for key in sorted(before.keys() - metadata.keys()):
        word = _readable(event, key, before[key]) if key.startswith(RESERVED) else None
        if word is not None and word.kind in ("thumbs", "scalar", "implicit"):
            words.append(replace(word, value=None, taken_back=True))
    return words


def mirrored_at_first(event: Inference) -> list[Word]:
    """What the metadata that a stored completion was asked for with says of it; what says nothing is left out, for the
    answer was given long ago."""
    if not event.stored or not event.completion_id:
        return []
    words = (_readable(event, key, text) for key, text in event.metadata.items() if key.startswith(RESERVED))
    return [word for word in words if word is not None]


def _readable(event: Inference, key: str, text: str) -> Word | None:
    try:
        return _word(event, key, text)
    except BadField:
        return None


def _word(event: Inference, key: str, text: str) -> Word:
    """One reserved pair, said by the completion's own user."""
    word = Word(target=event.completion_id, kind="thumbs", rater=event.user)
    what, _, name = key.removeprefix(RESERVED).partition(".")
    param = f"metadata.{key}"
    if what == "thumbs" and not name:
        if text.strip().lower() not in _THUMBS:
            raise BadField(f"{key!r} is one of {', '.join(_THUMBS)}; found {text[:64]!r}.", param=param)
        return replace(word, value=_THUMBS[text.strip().lower()])
    if what == "scalar":
        if not _NUMBER.fullmatch(text.strip()):
            raise BadField(f"{key!r} is a number in decimal notation; found {text[:64]!r}.", param=param)
        if not _SCALAR.fullmatch(name):
            raise BadField(f"{key!r} has no name after 'feedback.scalar.' that a scalar may have.", param=param)
        return replace(word, kind="scalar", name=name, value=float(text))
    if what in ("comment", "correction") and not name and text.strip():
        return replace(word, kind=what, text=text)  # type: ignore[arg-type]
    if what == "preferred_over" and not name and text.strip() not in ("", event.completion_id):
        return replace(word, kind="preference", other=text.strip())
    if what == "implicit" and not name and text in HAPPENED:
        return replace(word, kind="implicit", name=text)
    raise BadField(
        f"{key!r} = {text[:64]!r} is no feedback. Reserved keys: feedback.thumbs (up or down), feedback.scalar.NAME, "
        f"feedback.comment, feedback.correction, feedback.preferred_over, feedback.implicit ({', '.join(HAPPENED)}).",
        param=param,
    )
