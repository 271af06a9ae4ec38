"""What every store of experiments does: in memory, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from adapters.experiments import sql
from adapters.experiments.errors import (
    ExperimentConflict,
    ExperimentError,
    ExperimentNotFound,
    ExperimentOver,
    ExperimentsUnavailable,
    NoSlots,
    ProposalOver,
)
from adapters.experiments.store import ExperimentStore, MemoryExperiments
from adapters.experiments.turns import Turn
from adapters.experiments.values import (
    Adaptive,
    Answer,
    Arm,
    Better,
    Epoch,
    Experiment,
    Kind,
    Metric,
    Part,
    Proposal,
    Role,
    Ruling,
    Stage,
    Unit,
    Verdict,
)
from monitoring.database import connect, reading, revision

NOW = 1_800_000_000.0
METRIC = Metric(
    name="errors", source="error_rate", kind=Kind.PROPORTION, better=Better.LOWER, role=Role.PRIMARY, window_s=600.0,
    margin=0.02, slices=("language",), part=Part.WORST, rare=True,
)  # fmt: skip
ONE = Experiment(
    id="exp-1", name="support", alias="live", salt="süß", unit=Unit.CONVERSATION,
    arms=(Arm(name="control", number=1), Arm(name="new", number=2)), metrics=(METRIC,), adaptive=Adaptive(),
    shadow=Arm(name="dark", number=3), ask_before=(Verdict.PROMOTE,), opened_at=NOW, opened_by="ann", note="🙂",
    epochs=(Epoch(since=NOW, targets=(0.5, 0.5), shares=(0.4995, 0.5005)),),
)  # fmt: skip
RULING = Ruling(
    experiment="exp-1", at=NOW + 1, verdict=Verdict.HOLD, reasons=("waiting",), who="worker",
    numbers={"units": {"new": 3}, "estimates": [{"lower": None, "estimate": 0.25}]},
)  # fmt: skip
PROPOSAL = Proposal(
    id="exp-1.0", experiment="exp-1", verdict=Verdict.PROMOTE, arm="new", step=0, role="engineer", reasons=("better",),
    proposed_at=NOW, expires_at=NOW + 60,
)  # fmt: skip


@dataclass(frozen=True)
class House:
    store: ExperimentStore
    revision: Callable[[], int]

    def take(self, held: Experiment, **changes: Any) -> Experiment:
        extra = {key: changes.pop(key) for key in ("proposal", "answer") if key in changes}
        ruling = replace(RULING, experiment=held.id)
        return self.store.take(Turn(after=replace(held, **changes), ruling=ruling, **extra))


def on(url: str) -> Iterator[House]:
    engine = connect(url)
    store = sql.SqlExperiments(engine)

    def seen() -> int:
        with reading(engine).begin() as connection:
            return revision(connection)

    with engine.begin() as connection:
        for table in (sql.RULINGS, sql.PROPOSALS, sql.EXPERIMENTS):
            connection.execute(sa.delete(table))
    yield House(store, seen)
    engine.dispose()


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    if request.param == "memory":
        memory = MemoryExperiments()
        yield House(memory, lambda: memory.revision)
    elif request.param == "sqlite":
        yield from on(f"sqlite:///{tmp_path}/control.db")
    else:
        yield from on(request.getfixturevalue("postgres_url"))


def test_what_was_opened_is_read_back_whole_and_gateways_learn_of_it(house: House) -> None:
    before = house.revision()
    assert house.store.open(ONE) == ONE
    assert house.store.get("exp-1") == ONE
    assert house.store.list() == house.store.list("support", active=True) == (ONE,)
    assert house.store.list("sales") == ()
    assert house.revision() == before + 1
    (ruling,) = house.store.rulings("exp-1")
    assert (ruling.verdict, ruling.who, ruling.at, ruling.reasons) == (Verdict.OPEN, "ann", NOW, ("🙂",))


def test_opening_again_changes_nothing(house: House) -> None:
    house.store.open(ONE)
    before = house.revision()
    assert house.store.open(replace(ONE, note="again")) == ONE
    assert house.revision() == before
    assert len(house.store.rulings("exp-1")) == 1


def test_an_alias_has_one_running_experiment(house: House) -> None:
    first = house.store.open(ONE)
    with pytest.raises(ExperimentConflict, match="exp-1, opened by ann"):
        house.store.open(replace(ONE, id="exp-2"))
    house.store.open(replace(ONE, id="exp-3", alias="candidate"))
    house.store.open(replace(ONE, id="exp-4", name="sales"))
    house.take(first, stage=Stage.STOPPED)
    later = house.store.open(replace(ONE, id="exp-2", opened_at=NOW + 9))
    assert house.store.list("support", active=True)[0] == later
    assert [each.id for each in house.store.list("support")] == ["exp-2", "exp-3", "exp-1"]


def test_what_is_not_admitted_beside_the_others_is_not_opened(house: House) -> None:
    first = house.store.open(ONE)
    seen: list[str] = []

    def admit(active: Sequence[Experiment]) -> None:
        seen.extend(each.id for each in active)
        raise NoSlots("no room")

    before = house.revision()
    with pytest.raises(NoSlots):
        house.store.open(replace(ONE, id="exp-2", name="sales"), admit=admit)
    assert (seen, house.store.list(), house.revision()) == (["exp-1"], (first,), before)
    assert house.store.rulings("exp-2") == ()
    house.store.open(replace(ONE, id="exp-2", name="sales"), admit=lambda active: None)
    assert len(house.store.list(active=True)) == 2


def test_what_is_not_there_is_not_found(house: House) -> None:
    with pytest.raises(ExperimentNotFound, match="exp-1"):
        house.store.get("exp-1")
    with pytest.raises(ExperimentNotFound):
        house.take(ONE)
    with pytest.raises(ExperimentNotFound, match="nobody"):
        house.store.answer("nobody", Answer.APPROVED, who="bob", why="", now=NOW)
    assert not house.store.rulings("exp-1")
    assert not house.store.proposals()


def test_a_turn_writes_its_ruling_with_its_numbers(house: House) -> None:
    house.store.open(ONE)
    before = house.revision()
    after = house.take(ONE, srm=1.5)
    assert (after.turn, after.srm) == (1, 1.5)
    assert house.store.get("exp-1") == after
    assert house.store.rulings("exp-1", limit=1) == (replace(RULING, turn=1),)
    assert house.revision() == before  # nothing that gateways route by
    house.take(after, step=1, step_since=NOW + 5)
    assert house.revision() == before + 1


@pytest.mark.parametrize("stage", [Stage.PROMOTED, Stage.ROLLED_BACK, Stage.STOPPED])
def test_what_has_ended_takes_no_turn(stage: Stage, house: House) -> None:
    held = house.store.open(ONE)
    if stage is Stage.PROMOTED:
        held = house.take(held, stage=Stage.PROMOTING, chosen="new")
    ended = house.take(held, stage=stage)
    assert ended.ended_at == RULING.at
    assert house.store.list(active=True) == ()
    with pytest.raises(ExperimentOver, match=str(stage)):
        house.take(ended, stage=Stage.STOPPED)


def test_a_turn_from_a_row_that_has_moved_is_refused_and_writes_nothing(house: House) -> None:
    stale = house.store.open(ONE)
    held = house.take(stale)
    with pytest.raises(ExperimentConflict, match="at turn 1"):
        house.take(stale, stage=Stage.STOPPED, proposal=PROPOSAL)
    assert house.store.get("exp-1") == held
    assert len(house.store.rulings("exp-1")) == 2
    assert house.store.proposals() == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": Stage.PROMOTED},
        {"salt": "other"},
        {"alpha": 0.5},
        {"alias": "candidate"},
        {"arms": (Arm(name="control", number=1), Arm(name="new", number=7))},
        {"step": -1},
        {"srm": -1.0},
    ],
)
def test_a_turn_cannot_change_what_the_guarantees_rest_on(changes: dict[str, Any], house: House) -> None:
    house.store.open(ONE)
    with pytest.raises(ExperimentConflict):
        house.take(ONE, **changes)
    assert house.store.get("exp-1") == ONE


def test_a_dropped_arm_stays_dropped(house: House) -> None:
    house.store.open(ONE)
    held = house.take(ONE, dropped=("new",))
    with pytest.raises(ExperimentConflict, match="only grows"):
        house.take(held, dropped=())


def test_a_promotion_can_be_taken_back_to_running(house: House) -> None:
    held = house.take(house.store.open(ONE), stage=Stage.PROMOTING, chosen="new")
    assert house.store.list(active=True) == (held,)
    assert house.take(held, stage=Stage.RUNNING).stage is Stage.RUNNING


def test_a_proposal_is_answered_once(house: House) -> None:
    house.take(house.store.open(ONE), proposal=PROPOSAL)
    assert house.store.proposals(open_only=True) == house.store.proposals("exp-1") == (PROPOSAL,)
    done = house.store.answer("exp-1.0", Answer.APPROVED, who="bob", why="good", now=NOW + 5)
    assert done == replace(PROPOSAL, answer=Answer.APPROVED, decided_by="bob", why="good", decided_at=NOW + 5)
    assert house.store.proposals(open_only=True) == (done,)  # approved, and not yet carried out
    with pytest.raises(ProposalOver, match="approved by bob"):
        house.store.answer("exp-1.0", Answer.REJECTED, who="eve", why="", now=NOW + 6)


def test_a_proposal_is_not_answered_after_it_expired(house: House) -> None:
    house.take(house.store.open(ONE), proposal=PROPOSAL)
    with pytest.raises(ProposalOver, match="expired"):
        house.store.answer("exp-1.0", Answer.APPROVED, who="bob", why="", now=NOW + 60)
    assert house.store.proposals() == (PROPOSAL,)


def test_one_proposal_stands_at_a_time(house: House) -> None:
    held = house.take(house.store.open(ONE), proposal=PROPOSAL)
    other = replace(PROPOSAL, id="exp-1.1", proposed_at=NOW + 1)
    with pytest.raises(ExperimentConflict, match=r"exp-1\.0 stands"):
        house.take(held, proposal=other)
    house.take(held, proposal=other, answer=Answer.WITHDRAWN)
    assert [(each.id, each.answer) for each in house.store.proposals()] == [
        ("exp-1.1", Answer.PENDING),
        ("exp-1.0", Answer.WITHDRAWN),
    ]


def test_an_end_withdraws_what_was_proposed(house: House) -> None:
    held = house.take(house.store.open(ONE), proposal=PROPOSAL)
    house.take(held, stage=Stage.STOPPED)
    (found,) = house.store.proposals()
    assert (found.answer, found.decided_at) == (Answer.WITHDRAWN, RULING.at)
    with pytest.raises(ProposalOver):
        house.store.answer("exp-1.0", Answer.APPROVED, who="bob", why="", now=NOW + 5)


def race(calls: list[Callable[[], object]]) -> list[ExperimentError | None]:
    """Make the calls at once; what each raised."""
    raised: list[ExperimentError | None] = [None] * len(calls)
    gate = threading.Barrier(len(calls))

    def run(at: int) -> None:
        gate.wait()
        try:
            calls[at]()
        except ExperimentError as error:
            raised[at] = error

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.slow
def test_of_many_who_open_on_one_alias_one_wins(house: House) -> None:
    wishes = [replace(ONE, id=f"exp-{n}") for n in range(6)]
    raised = race([lambda wish=wish: house.store.open(wish) for wish in wishes])  # type: ignore[misc]
    assert sum(error is None for error in raised) == 1
    assert all(error is None or isinstance(error, ExperimentConflict) for error in raised)
    assert len(house.store.list(active=True)) == 1


@pytest.mark.slow
def test_of_many_who_take_a_turn_one_wins(house: House) -> None:
    house.store.open(ONE)
    raised = race([lambda n=n: house.take(ONE, srm=float(n)) for n in range(6)])  # type: ignore[misc]
    assert sum(error is None for error in raised) == 1
    assert all(error is None or isinstance(error, ExperimentConflict) for error in raised)
    assert (house.store.get("exp-1").turn, len(house.store.rulings("exp-1"))) == (1, 2)


@pytest.mark.slow
def test_of_an_approval_and_a_rejection_one_wins(house: House) -> None:
    house.take(house.store.open(ONE), proposal=PROPOSAL)
    answers = [Answer.APPROVED, Answer.REJECTED] * 3
    raised = race(
        [
            lambda answer=answer: house.store.answer("exp-1.0", answer, who=str(answer), why="", now=NOW)  # type: ignore[misc]
            for answer in answers
        ]
    )
    assert sum(error is None for error in raised) == 1
    won = answers[raised.index(None)]
    assert (house.store.proposals()[0].answer, house.store.proposals()[0].decided_by) == (won, str(won))


def test_a_database_that_does_not_answer_says_so(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/control.db")
    store = sql.SqlExperiments(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE experiments"))
    for call in (lambda: store.get("x"), store.list, lambda: store.open(ONE)):
        with pytest.raises(ExperimentsUnavailable):
            call()
    engine.dispose()
