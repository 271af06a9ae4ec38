"""Which adapters sit in an engine's slots, by our estimate."""

from __future__ import annotations

from gateway.routing.residency import Slots


def test_the_adapters_used_last_are_there_as_many_as_fit() -> None:
    slots = Slots(2)
    slots.use("a")
    assert slots.free
    slots.use("b")
    assert not slots.free
    slots.use("a")
    slots.use("c")
    assert [name in slots for name in "abc"] == [True, False, True]


def test_what_the_engine_no_longer_holds_is_in_no_slot() -> None:
    slots = Slots(2)
    slots.use("a")
    slots.use("b")
    slots.keep(frozenset({"b"}))
    assert [name in slots for name in "ab"] == [False, True]
    assert slots.free
