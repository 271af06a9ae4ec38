"""The permanent A/A self-test: one version against itself, on live traffic. Every difference it finds is an alarm.

It tests the whole path that every experiment goes: assignment, exposures, records, joins, statistics. It moves nothing,
makes way for any other experiment on its alias, and begins anew when that has ended, when the alias has moved, and once
a week: what is tested then is this week's path.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from adapters.errors import NotFound
from adapters.experiments.definition import Declared, Definition
from adapters.experiments.errors import BadExperiment, ExperimentConflict, ExperimentOver
from adapters.experiments.values import Arm, Step
from adapters.names import ByNumber, parse
from gateway.control import Control
from gateway.experimenting.opening import SELFTEST, open_experiment, stop_experiment
from gateway.settings import Settings

log = logging.getLogger("graftline.experiments")

RENEW_S = 7 * 86_400.0
#: What both arms are compared on: lengths are always there, thumbs where users give them.
_METRICS = (
    Declared(name="output_length", role="primary"),
    Declared(name="error_rate", role="guardrail", margin=0.02),
    Declared(name="thumbs_up_rate", role="diagnostic"),
)
_HALF = (Step(share=5000, at_least_s=0.0),)


def selftest(name: str, alias: str, number: int) -> Definition:
    """What is opened on `name@alias` while it points at version `number`."""
    return Definition(
        name=name,
        alias=alias,
        arms=(Arm(name="a", number=number), Arm(name="a-again", number=number)),
        metrics=_METRICS,
        ramp=_HALF,
        selftest=True,
        note="permanent A/A self-test",
    )


class SelfTest:
    def __init__(self, control: Control, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self._control, self._settings, self._clock = control, settings, clock

    def keep(self) -> None:
        """See to it that it runs where it should and nowhere else. Raises what opening raises. Blocking."""
        name, alias = self._place()
        here = False
        for each in self._control.experiments.list(active=True):
            ours = each.opened_by == SELFTEST
            if (each.name, each.alias) != (name, alias):
                if ours:
                    self._stop(each.id, "the self-test is not asked for here any more")
            elif ours and self._clock() - each.opened_at >= RENEW_S:
                self._stop(each.id, "a week is over: it begins anew")
            else:
                here = True
        if name and not here:
            self._open(name, alias)

    def _place(self) -> tuple[str, str]:
        asked = self._settings.selftest_alias
        if not asked:
            return "", ""
        found = parse(asked)
        if isinstance(found, ByNumber):
            raise BadExperiment([f"selftest_alias: {asked} is a version; name an alias, as support@live."])
        return found.name, found.alias

    def _open(self, name: str, alias: str) -> None:
        try:
            number = self._control.registry.resolve_name(f"{name}@{alias}").number
        except NotFound:
            return  # nothing to test yet
        try:
            opened = open_experiment(
                self._control, self._settings, selftest(name, alias, number), who=SELFTEST, now=self._clock()
            )
        except ExperimentConflict:
            return  # somebody tests here since we looked
        log.info("the self-test on %s@%s is %s", name, alias, opened.id)

    def _stop(self, id_: str, why: str) -> None:
        try:
            stop_experiment(self._control, id_, who=SELFTEST, why=why, now=self._clock())
        except ExperimentOver:
            return
