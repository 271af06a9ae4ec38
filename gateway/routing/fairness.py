"""Whose turn it is on one engine's adapter slots. Pure: clock readings are passed in, and nothing waits here.

An engine runs at most so many distinct adapters in one step and passes over all others, in no fair order. So there are
never more distinct adapters in flight here than slots, and the others queue: one queue an adapter, and all queues in a
ring. Who joins the ring joins at its end and only ever moves forward; whoever stands first gets the next slot.

An adapter has its slot for one turn: when it begins, what is queued goes at once and together, up to `turn_tokens`
tokens; until `turn_s` later further requests may follow within what is left of them. After that its new requests queue
behind all others while its running ones finish. What a turn could not use because the next request was too large for
the rest is kept for its next turn (deficit round robin). While nobody waits there are no turns and nothing is counted.

The bound, for W adapters wanted at one time, S slots that are not pinned, and answers that take at most L seconds once
they are let go: a request that is admitted to the queue with b tokens of its own adapter ahead of it, itself included,
waits at most

    ceil(b / turn_tokens) * ceil(W / S) * (turn_s + L)

For while someone waits, a slot's adapter lets its last request go at most `turn_s` after the wait or its turn began,
whichever was later, and that ends at most L afterwards: so in any `turn_s + L` seconds every slot starts the turn of
whoever stands first. At most W - 1 adapters stand before a newcomer, and as many again before each further turn.

A pinned adapter has a slot of its own that is counted off from the others', and never waits, but for the moment after
it was pinned in which all slots are still in use: then it stands first.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from gateway.errors import NoCapacity


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """`slots` are distinct adapters at one time, `queue_max` requests that may wait for one, on one replica."""

    slots: int = 16
    turn_s: float = 1.0
    turn_tokens: int = 32_768
    queue_max: int = 1_024
    queue_timeout_s: float = 60.0


def bound_s(
    rules: Rules, *, wanted: int, answer_s: float, pinned: int = 0, backlog_tokens: int = 1, workers: int = 1
) -> float:
    """The longest wait for a slot, seconds: the formula above. 0 where there is a slot for each adapter wanted.

    `rules.slots` are the engine's; each of several workers has its share of them, and what waits in one does not know
    of the others.
    """
    slots = share(rules.slots, workers) - pinned
    if wanted <= slots:
        return 0.0
    turns = math.ceil(backlog_tokens / rules.turn_tokens)
    return turns * math.ceil(wanted / max(1, slots)) * (rules.turn_s + answer_s)


def share(slots: int, workers: int) -> int:
    """The slots that each of several gateway processes may use of one engine."""
    return max(1, slots // workers)


class State(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    OVER = "over"


class Ticket:
    """One request for an adapter, from its arrival until it has left."""

    __slots__ = ("adapter", "arrived", "cost", "state")

    def __init__(self, adapter: str, cost: int, arrived: float, state: State = State.RUNNING) -> None:
        self.adapter, self.cost, self.arrived, self.state = adapter, cost, arrived, state


class _Turn:
    """An adapter that has a slot."""

    __slots__ = ("began", "credit", "running")

    def __init__(self, began: float, credit: int) -> None:
        self.began, self.credit, self.running = began, credit, 0


class _Queue:
    """The waiting requests of one adapter, and the tokens that its last turn left for it."""

    __slots__ = ("credit", "tickets")

    def __init__(self) -> None:
        self.credit = 0
        self.tickets: deque[Ticket] = deque()


class Turns:
    """The slots of one replica. After each call nobody waits who could go."""

    __slots__ = ("_holders", "_loose", "_pinned", "_ring", "_rules", "waiting")

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._holders: dict[str, _Turn] = {}
        self._ring: OrderedDict[str, _Queue] = OrderedDict()
        self._pinned: frozenset[str] = frozenset()
        self._loose = 0  # holders that are not pinned
        self.waiting = 0

    def arrive(self, adapter: str, cost: int, now: float) -> Ticket:
        """Let a request go, or queue it: the ticket's state says which. Raises `NoCapacity` when too many wait."""
        turn = self._holders.get(adapter)
        if self._ring:
            cost = min(cost, self._rules.turn_tokens)
            if not self._may_pass(adapter, cost, turn, now):
                return self._queue(adapter, cost, now)
        elif turn is None and not self._has_slot(adapter):
            return self._queue(adapter, min(cost, self._rules.turn_tokens), now)
        if turn is None:
            turn = self._start(adapter, now)
        elif self._ring:
            turn.credit -= cost
        turn.running += 1
        return Ticket(adapter, cost, now)

    def leave(self, ticket: Ticket, now: float) -> Sequence[Ticket]:
        """A request ended, or gave up waiting; returns those that go now. A second call changes nothing."""
        state, ticket.state = ticket.state, State.OVER
        if state is State.RUNNING:
            turn = self._holders[ticket.adapter]
            turn.running -= 1
            if turn.running:
                return ()
            del self._holders[ticket.adapter]
            self._loose -= ticket.adapter not in self._pinned
        elif state is State.WAITING:
            queue = self._ring[ticket.adapter]
            queue.tickets.remove(ticket)
            self.waiting -= 1
            if not queue.tickets:
                del self._ring[ticket.adapter]
        return self._settle(now) if self._ring else ()

    def pin(self, adapters: Sequence[str], now: float) -> Sequence[Ticket]:
        """Count off a slot for each of these, as far as one is left for all others; returns those that go now."""
        self._pinned = frozenset(adapters[: self._rules.slots - 1])
        self._loose = sum(adapter not in self._pinned for adapter in self._holders)
        for adapter in adapters:
            if adapter in self._ring and adapter in self._pinned:
                self._ring.move_to_end(adapter, last=False)
        return self._settle(now)

    def dismiss(self) -> Sequence[Ticket]:
        """Take everyone out of the ring: the replica is no longer one to wait for."""
        gone = [ticket for queue in self._ring.values() for ticket in queue.tickets]
        for ticket in gone:
            ticket.state = State.OVER
        self._ring.clear()
        self.waiting = 0
        return gone

    def ahead(self, adapter: str, cost: int, now: float) -> int:
        """How many adapters a request that came now would stand behind, itself counted; 0 when it would go at once."""
        turn = self._holders.get(adapter)
        if self._ring:
            goes = self._may_pass(adapter, min(cost, self._rules.turn_tokens), turn, now)
        else:
            goes = turn is not None or self._has_slot(adapter)
        return 0 if goes else 1 + len(self._ring)

    @property
    def held(self) -> int:
        """Distinct adapters in flight."""
        return len(self._holders)

    @property
    def pinned(self) -> frozenset[str]:
        return self._pinned

    def _may_pass(self, adapter: str, cost: int, turn: _Turn | None, now: float) -> bool:
        """Whether a request may go although others wait."""
        if adapter in self._pinned:
            return turn is not None or self._has_slot(adapter)
        return (
            turn is not None
            and adapter not in self._ring
            and now - turn.began < self._rules.turn_s
            and cost <= turn.credit
        )

    def _has_slot(self, adapter: str) -> bool:
        slots = self._rules.slots
        if len(self._holders) >= slots:
            return False
        return adapter in self._pinned or self._loose < slots - len(self._pinned)

    def _start(self, adapter: str, now: float) -> _Turn:
        turn = self._holders[adapter] = _Turn(now, self._rules.turn_tokens)
        self._loose += adapter not in self._pinned
        return turn

    def _queue(self, adapter: str, cost: int, now: float) -> Ticket:
        """Each adapter may wait with as many requests as there are places left, so that none takes them all."""
        rules = self._rules
        queue = self._ring.get(adapter)
        if (len(queue.tickets) if queue else 0) >= rules.queue_max - self.waiting:
            raise NoCapacity(
                f"{self.waiting} requests wait for one of {rules.slots} adapter slots already; "
                f"at most {rules.queue_max} may, and one adapter's no more than there are places left.",
                retry_after_s=max(1.0, rules.turn_s * math.ceil(len(self._ring) / rules.slots)),
            )
        if queue is None:
            queue = self._ring[adapter] = _Queue()
            if adapter in self._pinned:
                self._ring.move_to_end(adapter, last=False)
        ticket = Ticket(adapter, cost, now, State.WAITING)
        queue.tickets.append(ticket)
        self.waiting += 1
        return ticket

    def _settle(self, now: float) -> Sequence[Ticket]:
        """Start turns from the front of the ring until whoever stands there has to wait.

        Who has a slot already needs no other: its next turn begins where its last one ends.
        """
        gone: list[Ticket] = []
        while self._ring:
            adapter, queue = next(iter(self._ring.items()))
            turn = self._holders.get(adapter)
            if turn is None:
                if not self._has_slot(adapter):
                    break
                turn = self._start(adapter, now)
            self._begin(adapter, turn, queue, now, gone)
        return gone

    def _begin(self, adapter: str, turn: _Turn, queue: _Queue, now: float, gone: list[Ticket]) -> None:
        """One turn: what is queued goes, up to its tokens, unless it is pinned; the rest joins the ring anew."""
        turn.began, turn.credit = now, self._rules.turn_tokens + queue.credit
        tickets = queue.tickets
        while tickets and (tickets[0].cost <= turn.credit or adapter in self._pinned):
            ticket = tickets.popleft()
            ticket.state = State.RUNNING
            turn.credit -= ticket.cost
            turn.running += 1
            self.waiting -= 1
            gone.append(ticket)
        if tickets:
            queue.credit = turn.credit
            self._ring.move_to_end(adapter)
        else:
            del self._ring[adapter]
