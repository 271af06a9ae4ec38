"""Feedback joined to answers on disk: a temporary SQLite file, so that memory stays flat however much was said.

A word may be older or much younger than the page its answer stands on; here both meet. Scores wait here too, until the
other answers to the same question have been seen.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from monitoring.records.codes import code
from monitoring.records.events import Feedback, Inference, decode, encode

#: How many words of the average rater a rater's own mean is held against, so that one word says little of its rater.
_SHRINK = 5.0
_IN_ONE_MAX = 900
_TABLES = """
CREATE TABLE words (target INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE rated (rater INTEGER NOT NULL, scale INTEGER NOT NULL, value REAL NOT NULL);
CREATE TABLE scored (question INTEGER NOT NULL, score REAL NOT NULL, body BLOB NOT NULL);
"""
_INDEXES = """
CREATE INDEX words_target ON words (target);
CREATE TABLE raters (rater INTEGER, scale INTEGER, mean REAL, said INTEGER, PRIMARY KEY (rater, scale)) WITHOUT ROWID;
INSERT INTO raters SELECT rater, scale, AVG(value), COUNT(*) FROM rated GROUP BY rater, scale;
CREATE TABLE scales (scale INTEGER PRIMARY KEY, mean REAL);
INSERT INTO scales SELECT scale, AVG(value) FROM rated GROUP BY scale;
DROP TABLE rated;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """An answer with a score, as bytes that only who put them here reads."""

    score: float
    body: bytes


class Words:
    """First every word is added, then `sealed`, then asked for. Closing deletes nothing: the folder is the caller's."""

    def __init__(self, folder: Path) -> None:
        self._database = sqlite3.connect(folder / "words.db", isolation_level=None)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-4000", "temp_store=FILE", "mmap_size=0"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.executescript(_TABLES)

    def add(self, said: Sequence[Feedback]) -> None:
        """Some more of what was said."""
        self._database.execute("BEGIN")
        self._database.executemany(
            "INSERT INTO words VALUES (?, ?)",
            ((code(each.tenant, each.target_kind, each.target), encode(each)) for each in said),
        )
        self._database.executemany(
            "INSERT INTO rated VALUES (?, ?, ?)",
            (
                (_rater(each), code(each.tenant, each.name), each.value)
                for each in said
                if each.kind == "scalar" and each.value is not None
            ),
        )
        self._database.execute("COMMIT")

    def sealed(self) -> None:
        """All has been said."""
        self._database.executescript(_INDEXES)

    def about(self, records: Sequence[Inference]) -> list[list[Feedback]]:
        """What was said of each of these answers, or of the conversation it is in."""
        keys = [
            (
                code(each.tenant, "completion", each.completion_id) if each.completion_id else 0,
                code(each.tenant, "conversation", each.conversation) if each.conversation else 0,
            )
            for each in records
        ]
        found: dict[int, list[Feedback]] = {}
        for target, body in self._looked_up(sorted({key for both in keys for key in both if key})):
            said = decode(body)
            if isinstance(said, Feedback):
                found.setdefault(target, []).append(said)
        none: list[Feedback] = []
        return [found.get(of_answer, none) or found.get(of_whole, none) for of_answer, of_whole in keys]

    def centred(self, word: Feedback) -> float:
        """A scalar's value less its rater's mean on that scale, which leans on everybody's."""
        scale = code(word.tenant, word.name)
        row = self._database.execute("SELECT mean FROM scales WHERE scale = ?", (scale,)).fetchone()
        everybody = row[0] if row else 0.0
        own = self._database.execute(
            "SELECT mean, said FROM raters WHERE rater = ? AND scale = ?", (_rater(word), scale)
        ).fetchone()
        mean, said = own or (0.0, 0)
        return (word.value or 0.0) - (mean * said + everybody * _SHRINK) / (said + _SHRINK)

    def keep(self, question: int, score: float, body: bytes) -> None:
        """An answer with a score waits for others to the same question on the same scale."""
        self._database.execute("INSERT INTO scored VALUES (?, ?, ?)", (question, score, body))

    def questions(self, ends: int) -> Iterator[list[Scored]]:
        """The scored answers of each question, the best first; of very many, `ends` from either end."""
        self._database.execute("CREATE INDEX scored_question ON scored (question, score)")
        held: int | None = None
        answers: list[Scored] = []
        for question, score, body in self._database.execute(
            "SELECT question, score, body FROM scored ORDER BY question, score DESC, rowid"
        ):
            if question != held and answers:
                yield answers
                answers = []
            held = question
            answers.append(Scored(score=score, body=body))
            if len(answers) > 2 * ends:
                del answers[ends]
        if answers:
            yield answers

    def close(self) -> None:
        self._database.close()

    def _looked_up(self, targets: Sequence[int]) -> Iterable[tuple[int, bytes]]:
        for start in range(0, len(targets), _IN_ONE_MAX):
            some = targets[start : start + _IN_ONE_MAX]
            marks = ",".join("?" * len(some))
            yield from self._database.execute(
                f"SELECT target, body FROM words WHERE target IN ({marks}) ORDER BY target, rowid", some
            )


def _rater(word: Feedback) -> int:
    return code(word.tenant, word.rater_kind, word.rater)
