"""Whose turn it is on an engine's slots: what always holds, under any traffic, and the bound on waiting."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import NoCapacity
from gateway.routing.fairness import Rules, State, Ticket, Turns, bound_s, share
from loadtests import starvation

RULES = Rules(slots=2, turn_s=1.0, turn_tokens=100, queue_max=1000)


def went(tickets: object) -> list[str]:
    assert isinstance(tickets, list | tuple)
    assert all(ticket.state is State.RUNNING for ticket in tickets)
    return [ticket.adapter for ticket in tickets]


def test_while_slots_suffice_all_go_at_once_whatever_they_cost() -> None:
    turns = Turns(RULES)
    for at in range(500):
        for adapter in "ab":
            assert turns.ahead(adapter, 10**9, at) == 0
            assert turns.arrive(adapter, 10**9, at).state is State.RUNNING
    assert (turns.held, turns.waiting) == (2, 0)


def test_one_adapter_more_than_slots_waits_until_one_has_ended_all_its_requests() -> None:
    turns = Turns(RULES)
    a, more, b = turns.arrive("a", 1, 0), turns.arrive("a", 1, 0), turns.arrive("b", 1, 0)
    assert turns.ahead("c", 1, 0) == 1
    c = turns.arrive("c", 1, 0)
    assert c.state is State.WAITING
    assert turns.ahead("d", 1, 0) == 2
    assert went(turns.leave(a, 1)) == []
    assert went(turns.leave(more, 1)) == ["c"]
    assert went(turns.leave(b, 1)) == []
    assert went(turns.leave(c, 2)) == []
    assert (turns.held, turns.waiting) == (0, 0)


def test_in_a_turn_that_is_not_used_up_further_requests_go_although_others_wait() -> None:
    turns = Turns(RULES)
    turns.arrive("a", 1, 0)
    turns.arrive("b", 1, 0)
    turns.arrive("c", 1, 0.1)
    assert turns.ahead("a", 60, 0.5) == 0
    assert turns.arrive("a", 60, 0.5).state is State.RUNNING
    assert turns.ahead("a", 60, 0.5) == 2
    assert turns.arrive("a", 60, 0.5).state is State.WAITING, "over its tokens"
    assert turns.arrive("a", 1, 0.5).state is State.WAITING, "never before its own that came first"
    assert turns.arrive("b", 1, 1.0).state is State.WAITING, "over its time"


def test_a_flood_that_had_its_slot_alone_for_long_has_had_its_turn() -> None:
    turns = Turns(RULES)
    flood = [turns.arrive("flood", 1, at) for at in range(100)]
    turns.arrive("b", 1, 99)
    c = turns.arrive("c", 1, 99)
    later = turns.arrive("flood", 1, 99)
    assert later.state is State.WAITING
    for ticket in flood:
        turns.leave(ticket, 100)
    assert c.state is State.RUNNING
    assert later.state is State.WAITING
    assert went(turns.leave(c, 101)) == ["flood"]


def test_a_turn_lets_all_that_wait_go_together_up_to_its_tokens_and_keeps_what_was_too_little() -> None:
    turns = Turns(replace(RULES, slots=1))
    first = turns.arrive("a", 1, 0)
    waiting = [turns.arrive("b", 40, 0) for _ in range(6)]
    other = turns.arrive("c", 1, 0)
    assert went(turns.leave(first, 1)) == ["b", "b"]  # 20 of 100 are left, too few
    for ticket in waiting[:2]:
        turns.leave(ticket, 2)
    assert other.state is State.RUNNING, "the rest of b stands behind c"
    assert went(turns.leave(other, 3)) == ["b", "b", "b", "b"], "and alone it goes on as long as it likes"


def test_what_a_turn_left_counts_in_the_next() -> None:
    turns = Turns(replace(RULES, slots=1))
    first = turns.arrive("a", 1, 0)
    waiting = [turns.arrive("b", 60, 0) for _ in range(4)]
    c, d = turns.arrive("c", 1, 0), turns.arrive("c", 100, 0)
    assert went(turns.leave(first, 1)) == ["b"]  # 40 left
    turns.leave(waiting[0], 2)  # c's turn: its second is too large for what is left
    assert (c.state, d.state) == (State.RUNNING, State.WAITING)
    assert went(turns.leave(c, 3)) == ["b", "b"]  # 100 + 40


def test_a_request_larger_than_any_turn_goes_in_one() -> None:
    turns = Turns(replace(RULES, slots=1))
    first = turns.arrive("a", 1, 0)
    turns.arrive("b", 10**9, 0)
    assert went(turns.leave(first, 1)) == ["b"]


def test_who_has_a_slot_and_stands_first_goes_on_without_giving_it_back() -> None:
    turns = Turns(RULES)
    a, b = turns.arrive("a", 1, 0), turns.arrive("b", 1, 0)
    c = turns.arrive("c", 1, 2)
    again = turns.arrive("a", 1, 2)
    d = turns.arrive("d", 1, 2)
    assert went(turns.leave(b, 3)) == ["c", "a"]
    assert (again.state, d.state) == (State.RUNNING, State.WAITING)
    turns.leave(a, 3)
    assert went(turns.leave(again, 3)) == ["d"]
    turns.leave(c, 4)


def test_when_the_only_ones_that_others_had_to_wait_for_give_up_the_others_go() -> None:
    turns = Turns(RULES)
    turns.arrive("a", 1, 0)
    turns.arrive("b", 1, 0)
    c = turns.arrive("c", 1, 2)
    again = turns.arrive("a", 1, 2)
    assert again.state is State.WAITING
    assert went(turns.leave(c, 3)) == ["a"]
    assert went(turns.leave(c, 3)) == [], "once is enough"


def test_giving_up_keeps_the_others_of_its_queue() -> None:
    turns = Turns(replace(RULES, slots=1))
    a = turns.arrive("a", 1, 0)
    first, second = turns.arrive("b", 1, 0), turns.arrive("b", 1, 0)
    assert went(turns.leave(first, 1)) == []
    assert turns.waiting == 1
    assert went(turns.leave(a, 1)) == ["b"]
    assert second.state is State.RUNNING


def test_a_pinned_adapter_never_waits_behind_others_and_its_slot_is_nobody_elses() -> None:
    turns = Turns(RULES)
    assert went(turns.pin(("guard",), 0)) == []
    assert turns.pinned == {"guard"}
    a = turns.arrive("a", 1, 0)
    waiting = turns.arrive("b", 1, 0)
    assert waiting.state is State.WAITING, "the second slot is the guard's, though it is idle"
    assert turns.ahead("guard", 10**9, 0) == 0
    guards = [turns.arrive("guard", 10**9, at) for at in (0, 50)]
    assert [ticket.state for ticket in guards] == [State.RUNNING] * 2
    for ticket in guards:
        assert went(turns.leave(ticket, 60)) == [], "nor may b have it afterwards"
    assert went(turns.leave(a, 61)) == ["b"]


def test_one_slot_is_left_for_the_others_however_many_are_pinned() -> None:
    turns = Turns(RULES)
    turns.pin(("first", "second"), 0)
    assert turns.pinned == {"first"}
    assert turns.arrive("a", 1, 0).state is State.RUNNING
    assert turns.arrive("second", 1, 0).state is State.WAITING
    alone = Turns(replace(RULES, slots=1))
    alone.pin(("first",), 0)
    assert alone.pinned == frozenset()
    assert alone.arrive("a", 1, 0).state is State.RUNNING


def test_pinned_while_all_slots_are_in_use_it_stands_first() -> None:
    turns = Turns(RULES)
    a, b = turns.arrive("a", 1, 0), turns.arrive("b", 1, 0)
    c, before = turns.arrive("c", 1, 0), turns.arrive("guard", 90, 0)
    turns.arrive("guard", 90, 0)
    assert went(turns.pin(("guard",), 1)) == []
    assert turns.ahead("guard", 1, 1) > 0
    assert turns.arrive("guard", 90, 1).state is State.WAITING
    assert went(turns.leave(a, 2)) == ["guard"] * 3, "all, whatever they cost"
    assert (before.state, c.state) == (State.RUNNING, State.WAITING), "one loose slot is left, and b has it"
    assert went(turns.leave(b, 3)) == ["c"]
    assert went(turns.pin((), 4)) == []


def test_a_pinned_newcomer_stands_first_too() -> None:
    turns = Turns(RULES)
    a, _ = turns.arrive("a", 1, 0), turns.arrive("b", 1, 0)
    turns.arrive("c", 1, 0)
    turns.pin(("guard",), 1)
    guard = turns.arrive("guard", 1, 1)
    assert guard.state is State.WAITING
    assert went(turns.leave(a, 2)) == ["guard"]


def test_a_slot_that_is_no_longer_pinned_goes_to_who_waits() -> None:
    turns = Turns(RULES)
    turns.pin(("guard",), 0)
    turns.arrive("a", 1, 0)
    turns.arrive("b", 1, 0)
    assert went(turns.pin((), 1)) == ["b"]


def test_too_many_waiting_are_refused_with_a_time_to_come_back() -> None:
    turns = Turns(replace(RULES, slots=1, queue_max=8, turn_s=4.0))
    turns.arrive("a", 1, 0)
    for _ in range(4):
        turns.arrive("flood", 1, 0)
    with pytest.raises(NoCapacity, match="4 requests wait for one of 1 adapter slots") as caught:
        turns.arrive("flood", 1, 0)  # half of the places
    assert caught.value.retry_after_s == 4.0
    assert turns.arrive("b", 1, 0).state is State.WAITING, "others still find one"


def test_everyone_can_be_sent_to_wait_elsewhere() -> None:
    turns = Turns(replace(RULES, slots=1))
    a = turns.arrive("a", 1, 0)
    waiting = [turns.arrive(adapter, 1, 0) for adapter in "bbc"]
    assert turns.dismiss() == waiting
    assert all(ticket.state is State.OVER for ticket in waiting)
    assert turns.waiting == 0
    assert went(turns.leave(waiting[0], 1)) == []
    assert went(turns.leave(a, 1)) == []
    assert turns.held == 0


def test_the_stated_bound() -> None:
    rules = Rules(slots=2, turn_s=1.0, turn_tokens=100)
    assert bound_s(rules, wanted=2, answer_s=3.0) == 0.0
    assert bound_s(rules, wanted=10, answer_s=3.0) == 5 * 4.0
    assert bound_s(rules, wanted=10, answer_s=3.0, backlog_tokens=101) == 2 * 5 * 4.0
    assert bound_s(rules, wanted=10, answer_s=3.0, pinned=1) == 10 * 4.0
    assert bound_s(rules, wanted=10, answer_s=3.0, workers=2) == 10 * 4.0
    for wanted, slots in ((2, 2), (10, 2), (7, 3)):
        theirs = starvation.bound_s(wanted=wanted, slots=slots, turn_s=1.0, answer_s=3.0)
        assert theirs == bound_s(replace(rules, slots=slots), wanted=wanted, answer_s=3.0), "the measurement's own copy"
    assert [share(16, 1), share(16, 3), share(2, 4)] == [16, 5, 1]


# What holds under any traffic


@dataclass
class World:
    """Plays traffic in simulated time, and looks at everything after each step."""

    turns: Turns
    slots: int
    pins: frozenset[str] = frozenset()
    running: list[Ticket] = field(default_factory=list)
    waiting: list[Ticket] = field(default_factory=list)

    def arrive(self, adapter: str, cost: int, now: float) -> Ticket | None:
        try:
            ticket = self.turns.arrive(adapter, cost, now)
        except NoCapacity:
            return None
        (self.running if ticket.state is State.RUNNING else self.waiting).append(ticket)
        self.look()
        return ticket

    def leave(self, ticket: Ticket, now: float) -> list[Ticket]:
        (self.running if ticket.state is State.RUNNING else self.waiting).remove(ticket)
        return self.moved(list(self.turns.leave(ticket, now)))

    def pin(self, adapters: tuple[str, ...], now: float) -> None:
        gone = list(self.turns.pin(adapters, now))
        self.pins = self.turns.pinned
        self.moved(gone)

    def moved(self, gone: list[Ticket]) -> list[Ticket]:
        for ticket in gone:
            self.waiting.remove(ticket)
            self.running.append(ticket)
        self.look()
        return gone

    def look(self) -> None:
        held = {ticket.adapter for ticket in self.running}
        wanted = {ticket.adapter for ticket in self.waiting}
        assert len(held) <= self.slots, "never more adapters than slots"
        assert (self.turns.held, self.turns.waiting) == (len(held), len(self.waiting))
        assert not wanted or wanted - held, "nobody waits when only those wait that have a slot"
        if len(held) < self.slots:
            assert not wanted & self.pins, "a pinned adapter never waits while a slot is free"
            loose = len(held - self.pins)
            assert not wanted - held or loose >= self.slots - len(self.pins), "no slot stays idle while someone waits"


step = st.tuples(
    st.sampled_from(["arrive", "arrive", "arrive", "end", "end", "give up", "pin"]),
    st.integers(0, 5),
    st.integers(1, 150),
    st.floats(0, 0.7),
)


@pytest.mark.slow
@given(st.integers(1, 4), st.lists(step, max_size=120))
@settings(max_examples=300, deadline=None)
def test_whatever_comes_and_goes_slots_are_kept_and_none_is_idle_or_lost(
    slots: int, steps: list[tuple[str, int, int, float]]
) -> None:
    world = World(Turns(replace(RULES, slots=slots, queue_max=40)), slots)
    now = 0.0
    for what, which, cost, later in steps:
        now += later
        if what == "arrive":
            world.arrive(f"adapter-{which}", cost, now)
        elif what == "end" and world.running:
            world.leave(world.running[cost % len(world.running)], now)
        elif what == "give up" and world.waiting:
            world.leave(world.waiting[cost % len(world.waiting)], now)
        elif what == "pin":
            world.pin(tuple(f"adapter-{n}" for n in range(which, min(6, which + cost % 3))), now)
    while world.running or world.waiting:  # all that is left gives up or ends, in any order: nothing leaks
        world.leave((world.running or world.waiting)[-1], now)
    assert (world.turns.held, world.turns.waiting) == (0, 0)


@pytest.mark.slow
@given(st.integers(1, 4), st.integers(2, 9), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_nobody_waits_longer_than_the_stated_bound_whatever_the_others_do(
    slots: int, adapters: int, seed: int, gives_up: bool
) -> None:
    """A flood that never lets up, others that trickle, random lengths up to L, clients that leave."""
    rng, answer_s = random.Random(seed), 3.0
    rules = replace(RULES, slots=slots, queue_max=10_000)
    world = World(Turns(rules), slots)
    events: list[tuple[float, int, str, object]] = []
    number = 0

    def at(when: float, what: str, whom: object) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (when, number, what, whom))

    floods = {f"adapter-{n}" for n in range(rng.randint(1, adapters))}
    for n in range(adapters):
        at(rng.random(), "arrive", f"adapter-{n}")
    limits: dict[Ticket, float] = {}
    while events and events[0][0] < 20:
        now, _, what, whom = heapq.heappop(events)
        gone: list[Ticket] = []
        if what == "arrive":
            adapter = str(whom)
            at(now + rng.expovariate(6 if adapter in floods else 0.5), "arrive", adapter)
            cost = rng.randint(1, 100)
            ahead = sum(t.cost for t in world.waiting if t.adapter == adapter)
            ticket = world.arrive(adapter, cost, now)
            assert ticket is not None
            if ticket.state is State.RUNNING:
                gone = [ticket]
            else:
                backlog = max(1, ahead + cost)
                limits[ticket] = bound_s(rules, wanted=adapters, answer_s=answer_s, backlog_tokens=backlog)
                if gives_up and rng.random() < 0.3:
                    at(now + rng.random() * 5, "give up", ticket)
        elif isinstance(whom, Ticket) and (what == "end" or whom.state is State.WAITING):
            gone = world.leave(whom, now)
        for ticket in gone:
            assert now - ticket.arrived <= limits.get(ticket, 0.0) + 1e-9
            at(now + rng.random() * answer_s, "end", ticket)
        for ticket in world.waiting:
            assert now - ticket.arrived <= limits[ticket] + 1e-9, "and those still waiting"


def test_all_adapters_of_a_long_contest_get_the_same_number_of_tokens() -> None:
    turns = Turns(replace(RULES, slots=2, queue_max=100_000))
    rng = random.Random(1)
    served: Counter[str] = Counter()
    running: list[Ticket] = []

    def queue(adapter: str) -> None:
        ticket = turns.arrive(adapter, rng.randint(1, 100), 0)
        if ticket.state is State.RUNNING:
            running.append(ticket)

    for _ in range(1000):
        for adapter in ("small", "large", "third", "fourth"):
            queue(adapter)
    for now in range(2000):
        ticket = running.pop(0)
        served[ticket.adapter] += ticket.cost
        running.extend(turns.leave(ticket, float(now)))
    assert max(served.values()) - min(served.values()) <= 3 * RULES.turn_tokens
    assert math.isclose(max(served.values()), min(served.values()), rel_tol=0.1)
