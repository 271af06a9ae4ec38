"""One worker on duty at a time."""

from __future__ import annotations

from gateway.engines.fleet.duty import TTL_S, Duty
from gateway.engines.fleet.store import MemoryDuties


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def worker(duties: MemoryDuties, owner: str, clock: Clock, told: list[str]) -> Duty:
    return Duty(
        duties,
        owner,
        gained=lambda: told.append(f"{owner} gained"),
        lost=lambda: told.append(f"{owner} lost"),
        clock=clock,
        mono=clock,
    )


async def test_a_step_is_done_by_the_worker_on_duty_only_and_a_silent_one_stops_before_it_is_taken_over() -> None:
    duties, clock, told, done = MemoryDuties(), Clock(), list[str](), list[str]()
    a, b = worker(duties, "a", clock, told), worker(duties, "b", clock, told)

    async def by_a() -> None:
        done.append("a")

    async def by_b() -> None:
        done.append("b")

    await a.renew()
    await b.renew()
    for duty, step in ((a, by_a), (b, by_b)):
        await duty.on_duty(step)()
    assert done == ["a"]
    clock.now += TTL_S / 2  # `a` hangs
    await a.on_duty(by_a)()
    await b.renew()
    assert not b.held
    clock.now += TTL_S / 2
    await b.renew()
    await b.on_duty(by_b)()
    await a.renew()
    assert done == ["a", "b"]
    assert told == ["a gained", "b gained", "a lost"]
    await b.end()
    assert not b.held
    await a.renew()
    assert a.held
