"""`ExperimentStore` on SQLite and PostgreSQL.

A change locks the revision row first: on PostgreSQL this is the queue in which writers wait, as for the registry. The
unique keys `running` and `standing` (empty, so NULL, once it is over) hold the rules of one even without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.engine import Connection, Engine

from adapters.experiments import turns
from adapters.experiments.errors import ExperimentsUnavailable
from adapters.experiments.store import Admit
from adapters.experiments.turns import Turn
from adapters.experiments.values import ACTIVE, Answer, Experiment, Proposal, Ruling
from monitoring.database import REVISION, answering, bump, migrate, reading

_META = sa.MetaData()

EXPERIMENTS = sa.Table(
    "experiments",
    _META,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(63), nullable=False, index=True),
    sa.Column("alias", sa.String(63), nullable=False),
    sa.Column("running", sa.String(127), unique=True),  # name@alias while it is active
    sa.Column("stage", sa.String(16), nullable=False),
    sa.Column("turn", sa.Integer, nullable=False),
    sa.Column("opened_at", sa.Double, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

RULINGS = sa.Table(
    "experiment_rulings",
    _META,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("experiment", sa.String(64), sa.ForeignKey(EXPERIMENTS.c.id), nullable=False),
    sa.Column("turn", sa.Integer, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("verdict", sa.String(16), nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.UniqueConstraint("experiment", "turn"),
)

PROPOSALS = sa.Table(
    "experiment_proposals",
    _META,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("experiment", sa.String(64), sa.ForeignKey(EXPERIMENTS.c.id), nullable=False, index=True),
    sa.Column("standing", sa.String(64), unique=True),  # the experiment while it is open
    sa.Column("answer", sa.String(16), nullable=False),
    sa.Column("proposed_at", sa.Double, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

STEPS = (_META.create_all,)

_EXPERIMENT = TypeAdapter(Experiment)
_RULING = TypeAdapter(Ruling)
_PROPOSAL = TypeAdapter(Proposal)


class SqlExperiments:
    """Migrates its room when it is made."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        with answering("experiments'", ExperimentsUnavailable):
            migrate(engine, "experiments", STEPS)

    def open(self, experiment: Experiment, *, admit: Admit | None = None) -> Experiment:
        with self._changing() as connection:
            if (known := _found(connection, experiment.id)) is not None:
                return known
            running = sa.select(EXPERIMENTS.c.body).where(EXPERIMENTS.c.running.is_not(None))
            active = [_EXPERIMENT.validate_json(body) for body in connection.scalars(running)]
            ruling = turns.opened(experiment, [each for each in active if _running(each) == _running(experiment)])
            if admit is not None:
                admit(active)
            connection.execute(sa.insert(EXPERIMENTS).values(_experiment_row(experiment)))
            connection.execute(sa.insert(RULINGS).values(_ruling_row(ruling)))
            bump(connection)
            return experiment

    def get(self, id_: str) -> Experiment:
        with self._reading() as connection:
            return _held(connection, id_)

    def list(self, name: str | None = None, *, active: bool = False) -> tuple[Experiment, ...]:
        query = sa.select(EXPERIMENTS.c.body).order_by(EXPERIMENTS.c.opened_at.desc(), EXPERIMENTS.c.id.desc())
        if name is not None:
            query = query.where(EXPERIMENTS.c.name == name)
        if active:
            query = query.where(EXPERIMENTS.c.stage.in_([str(stage) for stage in ACTIVE]))
        with self._reading() as connection:
            return tuple(_EXPERIMENT.validate_json(body) for body in connection.scalars(query))

    def take(self, turn: Turn) -> Experiment:
        with self._changing() as connection:
            held = _held(connection, turn.after.id)
            done = turns.turned(held, turn)
            bodies = connection.scalars(sa.select(PROPOSALS.c.body).where(PROPOSALS.c.standing == held.id)).all()
            for proposal in turns.proposed([_PROPOSAL.validate_json(body) for body in bodies], done):
                _put(connection, proposal)
            ours = (EXPERIMENTS.c.id == held.id) & (EXPERIMENTS.c.turn == held.turn)
            connection.execute(sa.update(EXPERIMENTS).where(ours).values(_experiment_row(done.after)))
            connection.execute(sa.insert(RULINGS).values(_ruling_row(done.ruling)))
            if turns.routed_otherwise(held, done.after):
                bump(connection)
            return done.after

    def rulings(self, id_: str, limit: int = 100) -> tuple[Ruling, ...]:
        query = sa.select(RULINGS.c.body).where(RULINGS.c.experiment == id_).order_by(RULINGS.c.turn.desc())
        with self._reading() as connection:
            return tuple(_RULING.validate_json(body) for body in connection.scalars(query.limit(limit)))

    def proposals(self, experiment: str | None = None, *, open_only: bool = False) -> tuple[Proposal, ...]:
        query = sa.select(PROPOSALS.c.body).order_by(PROPOSALS.c.proposed_at.desc(), PROPOSALS.c.id.desc())
        if experiment is not None:
            query = query.where(PROPOSALS.c.experiment == experiment)
        if open_only:
            query = query.where(PROPOSALS.c.standing.is_not(None))
        with self._reading() as connection:
            return tuple(_PROPOSAL.validate_json(body) for body in connection.scalars(query))

    def answer(self, id_: str, answer: Answer, *, who: str, why: str, now: float) -> Proposal:
        with self._changing() as connection:
            body = connection.scalar(sa.select(PROPOSALS.c.body).where(PROPOSALS.c.id == id_))
            if body is None:
                raise turns.no_proposal(id_)
            after = turns.answered(_PROPOSAL.validate_json(body), answer, who=who, why=why, now=now)
            _put(connection, after)
            return after

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        with answering("experiments'", ExperimentsUnavailable), self._engine.begin() as connection:
            connection.execute(sa.select(REVISION.c.id).with_for_update())
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with answering("experiments'", ExperimentsUnavailable), reading(self._engine).begin() as connection:
            yield connection


def _found(connection: Connection, id_: str) -> Experiment | None:
    body = connection.scalar(sa.select(EXPERIMENTS.c.body).where(EXPERIMENTS.c.id == id_))
    return None if body is None else _EXPERIMENT.validate_json(body)


def _held(connection: Connection, id_: str) -> Experiment:
    if (found := _found(connection, id_)) is None:
        raise turns.no_experiment(id_)
    return found


def _put(connection: Connection, proposal: Proposal) -> None:
    connection.execute(sa.delete(PROPOSALS).where(PROPOSALS.c.id == proposal.id))
    connection.execute(sa.insert(PROPOSALS).values(_proposal_row(proposal)))


def _running(experiment: Experiment) -> str:
    return f"{experiment.name}@{experiment.alias}"


def _experiment_row(experiment: Experiment) -> dict[str, Any]:
    return {
        "id": experiment.id,
        "name": experiment.name,
        "alias": experiment.alias,
        "running": _running(experiment) if experiment.active else None,
        "stage": str(experiment.stage),
        "turn": experiment.turn,
        "opened_at": experiment.opened_at,
        "body": _EXPERIMENT.dump_json(experiment).decode(),
    }


def _ruling_row(ruling: Ruling) -> dict[str, Any]:
    return {
        "experiment": ruling.experiment,
        "turn": ruling.turn,
        "at": ruling.at,
        "verdict": str(ruling.verdict),
        "who": ruling.who,
        "body": _RULING.dump_json(ruling).decode(),
    }


def _proposal_row(proposal: Proposal) -> dict[str, Any]:
    return {
        "id": proposal.id,
        "experiment": proposal.experiment,
        "standing": proposal.experiment if proposal.open else None,
        "answer": str(proposal.answer),
        "proposed_at": proposal.proposed_at,
        "body": _PROPOSAL.dump_json(proposal).decode(),
    }
