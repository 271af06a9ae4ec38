"""Why something did not become a row. Every exclusion has one of these, and is counted under it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

#: Of each reason as many examples are kept, by id.
EXAMPLES_MAX = 3


class Reason(StrEnum):
    """The value is public: it stands in manifests and reports."""

    # A record, or a line of a file
    NO_FEEDBACK = "no_feedback"
    OTHER_FEEDBACK = "other_feedback"
    OPTED_OUT = "opted_out"
    IN_EXPERIMENT = "in_experiment"
    NOT_CAPTURED = "not_captured"
    FAILED = "failed"
    INCOMPLETE = "incomplete"
    TRUNCATED = "truncated"
    TAINTED = "tainted"
    FILTERED = "filtered"
    UNREADABLE = "unreadable"
    NOT_CHAT = "not_chat"
    TOOLS = "tools"
    MEDIA = "media"
    SEVERAL_ANSWERS = "several_answers"
    ROLES = "roles"
    EMPTY = "empty"
    # What was said of it
    TAKEN_BACK = "taken_back"
    TIED = "tied"
    OUTVOTED = "outvoted"
    UNDECIDED = "undecided"
    LOW_WEIGHT = "low_weight"
    NO_CHANGE = "no_change"
    TINY_EDIT = "tiny_edit"
    OTHER_MISSING = "other_missing"
    OTHER_PROMPT = "other_prompt"
    SAME_ANSWERS = "same_answers"
    NO_PARTNER = "no_partner"
    # A row
    SECRET = "secret"
    PERSONAL = "personal_data"
    PLACEHOLDERS = "placeholders"
    UNSAFE = "unsafe"
    TOO_LONG = "too_long"
    TEMPLATE = "template"
    CONTRADICTED = "contradicted"
    NEAR_DUPLICATE = "near_duplicate"
    USER_CAP = "user_cap"
    CLUSTER_CAP = "cluster_cap"
    ROUTE_CAP = "route_cap"
    LABEL_CAP = "label_cap"
    HELD_OUT = "held_out"
    LEAKED = "leaked"
    # What a teacher said
    OTHER_FACTS = "other_facts"
    DOUBTED = "doubted"
    TEACHER_CAP = "teacher_cap"


MEANS: Mapping[Reason, str] = {
    Reason.NO_FEEDBACK: "nobody said anything of the answer",
    Reason.OTHER_FEEDBACK: "what was said is of no use for this kind of dataset",
    Reason.OPTED_OUT: "its user does not want to be learnt from",
    Reason.IN_EXPERIMENT: "its unit is being evaluated by a running experiment",
    Reason.NOT_CAPTURED: "the key's policy kept no text",
    Reason.FAILED: "the request failed",
    Reason.INCOMPLETE: "the answer broke off",
    Reason.TRUNCATED: "the answer or its record was cut at a limit",
    Reason.TAINTED: "the replica was poisoned while it answered",
    Reason.FILTERED: "a content filter ended the answer",
    Reason.UNREADABLE: "request or response is not of a form that we know",
    Reason.NOT_CHAT: "not a conversation",
    Reason.TOOLS: "tool calls are not learnt from yet",
    Reason.MEDIA: "images and sound are not learnt from yet",
    Reason.SEVERAL_ANSWERS: "several answers share one id, so nobody knows which one was meant",
    Reason.ROLES: "roles are out of order: the system first, then users and assistants in turn, a user last",
    Reason.EMPTY: "question or answer has no text",
    Reason.TAKEN_BACK: "whoever said it took it back",
    Reason.TIED: "as much was said for it as against it",
    Reason.OUTVOTED: "others, or a later word, weigh more",
    Reason.UNDECIDED: "the score is neither good nor bad",
    Reason.LOW_WEIGHT: "who said it carries too little weight",
    Reason.NO_CHANGE: "the correction changes nothing",
    Reason.TINY_EDIT: "the correction is too small to prefer it by",
    Reason.OTHER_MISSING: "the answer it was preferred to is not recorded",
    Reason.OTHER_PROMPT: "the two answers are to different questions",
    Reason.SAME_ANSWERS: "the two answers are the same",
    Reason.NO_PARTNER: "no other answer to the same question has another score",
    Reason.SECRET: "a key or token stands in it",
    Reason.PERSONAL: "personal data stands in it",
    Reason.PLACEHOLDERS: "but for redacted places the answer says nothing",
    Reason.UNSAFE: "the wanted answer is not safe",
    Reason.TOO_LONG: "more tokens than allowed",
    Reason.TEMPLATE: "the chat template does not put the answer after the question",
    Reason.CONTRADICTED: "others judged the very same answer to the very same question the other way",
    Reason.NEAR_DUPLICATE: "says nearly the same as a row that is kept",
    Reason.USER_CAP: "its user has as many rows as one may have",
    Reason.CLUSTER_CAP: "its kind of question has as many rows as one may have",
    Reason.ROUTE_CAP: "its route has as many rows as one may have",
    Reason.LABEL_CAP: "its label has as many rows as one may have",
    Reason.HELD_OUT: "an earlier row of a user who is held out for evaluation",
    Reason.LEAKED: "training has the same question, so it cannot evaluate",
    Reason.OTHER_FACTS: "the teacher changed numbers or placeholders, or said much more or less",
    Reason.DOUBTED: "asked again, the teacher itself did not stand by it",
    Reason.TEACHER_CAP: "the dataset has as many of the teacher's rows as it may have",
}


@dataclass(slots=True)
class Tally:
    """Counts by reason, and the ids of the first few. Grows with the number of reasons only."""

    counts: dict[Reason, int] = field(default_factory=dict)
    examples: dict[Reason, list[str]] = field(default_factory=dict)

    def add(self, reason: Reason, id_: str = "", count: int = 1) -> None:
        """Something left for this reason."""
        self.counts[reason] = self.counts.get(reason, 0) + count
        known = self.examples.setdefault(reason, [])
        if id_ and len(known) < EXAMPLES_MAX:
            known.append(id_)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def document(self) -> dict[str, int]:
        """Counts by the reasons' public names, the largest first."""
        return {reason.value: count for reason, count in sorted(self.counts.items(), key=lambda each: (-each[1], each))}
