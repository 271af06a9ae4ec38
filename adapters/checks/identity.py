"""Which base an adapter was trained on, by its own word, compared with the base that is served.

Names are claims and not proof: shapes and the proof of effect decide in the end. But a wrong name is the cheapest sign
of a wrong base, and vLLM ignores it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.errors import Findings, shown

LINEAGE = "lineage.json"
_LINEAGE_BYTES_MAX = 32 << 20

#: Endings that say how a checkpoint was quantised or in which precision it is kept, and not which model it is.
_QUANTIZED = re.compile(
    r"[-_.](?:awq|gptq|gguf|bnb|nf4|hqq|aqlm|quip|marlin|autoround|auto-round|torchao|quantized|dynamic|sym|asym|"
    r"int[248]|uint4|fp[48]|fp16|bf16|fp32|f16|w4a16|w8a8|w8a16|w4a8|nvfp4|nvfp4a16|mxfp[48]|bitnet|"
    r"[234568]-?bits?|g\d{2,3}|gs\d{2,3}|kv|block|channel|tensor|static|mixed)$",
    re.IGNORECASE,
)
_SNAPSHOT = re.compile(r"models--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

OTHER_QUANTIZATION = "other_quantization"
OTHER_PUBLISHER = "other_publisher"
OTHER_TEMPLATE = "other_template"
BASE_UNNAMED = "base_unnamed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseIdentity:
    """What the served base is called and what its bytes are. An empty field is not compared."""

    #: The hub id, or the name that clients use.
    name: str = ""
    #: Further names for the same weights: mirrors, folders, the checkpoint it was quantised from. `name@commit` also
    #: vouches for that revision.
    aliases: tuple[str, ...] = ()
    revision: str = ""
    digest: str = ""
    template_digest: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that means this base."""
        return tuple(name for name in (self.name, *self.aliases) if name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What an adapter says about its base. `digest` stands in lineage.json, where our own training writes it."""

    name: str = ""
    revision: str = ""
    digest: str = ""


def identified(folder: Path, *, names: tuple[str, ...], digest: str) -> BaseIdentity:
    """The identity of the base in `folder`: the names given, and those that the folder itself tells. A folder of the
    hub cache tells the repository and the commit; a card tells the name that it was made under."""
    hub, commit = _hub_name(folder.resolve().as_posix())
    card = _object(folder / "card.json").get("name")
    told = (hub if commit else "", card if isinstance(card, str) else "", folder.name if not commit else "")
    known = tuple(dict.fromkeys(name for name in (*names, *told) if name and not _is_path(name)))
    return BaseIdentity(name=known[0] if known else "", aliases=known[1:], revision=commit, digest=digest)


def check_identity(stated: Stated, base: BaseIdentity, findings: Findings) -> tuple[str, ...]:
    """Compare; returns labels. What contradicts the served base goes to `findings`."""
    if not base.names:
        return ()
    name, commit = _hub_name(stated.name)
    relation = min((_relation(name, known) for known in base.names), key=_RELATIONS.index)
    if relation == "other":
        allowed = f"{', '.join(base.names)}, or another quantization of the same base"
        advice = "Train it on the served base. If this is another name for the same weights, add it to base_aliases."
        findings.add("base_mismatch", "base_model_name_or_path", stated.name, allowed, advice)
        return ()
    labels = [relation] if relation in (OTHER_QUANTIZATION, OTHER_PUBLISHER, BASE_UNNAMED) else []
    if relation == "same":
        _check_revision(stated.revision or commit, base, findings)
    if stated.digest and base.digest and stated.digest != base.digest and relation != OTHER_QUANTIZATION:
        advice = "The base was changed since. Train on the one that is served, or serve the one that was trained on."
        findings.add("base_digest_mismatch", f"{LINEAGE}: base.digest", stated.digest, base.digest, advice)
    return tuple(labels)


def read_lineage(folder: Path) -> tuple[str, str]:
    """The base's digest that the folder's lineage.json states, and a warning when the file says nothing readable."""
    path = folder / LINEAGE
    if not path.is_file():
        return "", ""
    found = _object(path)
    if not found:
        return "", f"{LINEAGE} is no JSON object of at most {_LINEAGE_BYTES_MAX} bytes; nothing in it was compared"
    digest = _digest(found)
    if digest and not _DIGEST.fullmatch(digest):
        return "", f"{LINEAGE} states a base digest that is none: {shown(digest)}"
    return digest, ""


def stem(name: str) -> str:
    """The name without its publisher and without endings that only say how it is quantised; folded for comparing."""
    last = name.rstrip("/").rpartition("/")[2].casefold()
    while (shorter := _QUANTIZED.sub("", last)) != last and shorter:
        last = shorter
    return last


#: From the best to the worst that two names can be to each other.
_RELATIONS = ("same", OTHER_PUBLISHER, OTHER_QUANTIZATION, BASE_UNNAMED, "other")


def _relation(stated: str, known: str) -> str:
    """How the name that an adapter states stands to one name of the base."""
    known = known.partition("@")[0]
    publisher, _, last = known.rstrip("/").rpartition("/")
    theirs, _, their_last = stated.rstrip("/").rpartition("/")
    if not stated or _is_path(stated):
        theirs = ""
    if last.casefold() == their_last.casefold():
        same = not publisher or not theirs or publisher.casefold() == theirs.casefold()
        return "same" if same else OTHER_PUBLISHER
    if their_last and stem(known) == stem(their_last):
        return OTHER_QUANTIZATION
    return BASE_UNNAMED if not stated or _is_path(stated) else "other"


def _is_path(name: str) -> bool:
    """A folder on the trainer's machine, which says nothing here."""
    return name.startswith(("/", ".", "~")) or "\\" in name or name.count("/") > 1 or name[1:3] == ":/"


def _hub_name(name: str) -> tuple[str, str]:
    """A folder of the hub cache names the repository and the commit; other names are taken as they are."""
    if found := _SNAPSHOT.search(name):
        return found["name"].replace("--", "/"), found["commit"]
    return name.strip(), ""


def _check_revision(revision: str, base: BaseIdentity, findings: Findings) -> None:
    """Branches move, so only commits are compared."""
    known = {base.revision, *(alias.partition("@")[2] for alias in base.aliases)}
    commits = {commit for commit in known if _COMMIT.fullmatch(commit)}
    if commits and _COMMIT.fullmatch(revision) and revision not in commits:
        advice = "Train on the served revision. If the weights are the same, add NAME@COMMIT to base_aliases."
        findings.add("base_revision_mismatch", "revision", revision, " or ".join(sorted(commits)), advice)


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a small file; empty where there is none."""
    try:
        found = json.loads(path.read_bytes()) if path.stat().st_size <= _LINEAGE_BYTES_MAX else None
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest(found: dict[str, Any]) -> str:
    """`base.digest`, or `base_digest` beside the rest."""
    base = found.get("base")
    stated = base.get("digest") if isinstance(base, dict) else found.get("base_digest")
    return stated if isinstance(stated, str) else ""
