"""The gate's section of a recipe."""

from __future__ import annotations

import pytest

from training.gate.targets import Guard, Target, Targets
from training.recipes.errors import BadRecipe
from training.recipes.recipe import read

HEAD = "name: polite\ndata:\n  train: tidewell:usual\n"


def test_a_recipe_without_a_gate_has_the_usual_guards() -> None:
    gate = read(HEAD).gate
    assert gate == Targets()
    assert (gate.usual, gate.targets, gate.guards, gate.canaries) == (True, {}, {}, 0)


def test_targets_and_guards_are_named_by_measure() -> None:
    text = HEAD + (
        "gate:\n  targets:\n    polite.right: {gain_at_least: 0.5, at_least: 0.95}\n"
        "  guards:\n    facts.right: {drop_at_most: 0.03, against: live}\n  usual: false\n"
    )
    gate = read(text).gate
    assert gate.targets == {"polite.right": Target(gain_at_least=0.5, at_least=0.95)}
    assert gate.guards == {"facts.right": Guard(drop_at_most=0.03, against="live")}
    assert not gate.usual


def test_all_problems_are_told_together_and_by_place() -> None:
    text = HEAD + (
        "gate:\n  targets:\n    held.exact: {at_leest: 0.5}\n    held.f1: {}\n"
        "  guards:\n    facts.right: {drop_at_most: -1}\n  canary: 3\n"
    )
    with pytest.raises(BadRecipe) as caught:
        read(text)
    told = str(caught.value)
    assert "gate.targets.held.exact.at_leest: unknown key; did you mean at_least?" in told
    assert "gate.targets.held.f1" in told
    assert "gate.guards.facts.right.drop_at_most" in told
    assert "gate.canary: unknown key; did you mean canaries?" in told


def test_a_measure_is_named_with_its_suite() -> None:
    with pytest.raises(BadRecipe, match=r"gate\.targets"):
        read(HEAD + "gate:\n  targets:\n    exact: {at_least: 0.5}\n")
