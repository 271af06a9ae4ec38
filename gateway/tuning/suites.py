"""What a trained version is asked before it may serve, and by whom it is judged. Pure."""

from __future__ import annotations

from pydantic import SecretStr

from gateway.settings import Settings
from training.evaluation.suites.standard import held_source, suites
from training.evaluation.values import Asked, Judge
from training.recipes.recipe import Recipe


def suites_for(recipe: Recipe, *, shop: bool) -> tuple[Asked, ...]:
    """The suites of a recipe; `shop`: the base is the embedded one, of which it is known what it can."""
    return suites(recipe.evaluation, held=held_source(recipe.data.train, recipe.data.held), shop=shop)


def judge_of(settings: Settings) -> Judge | None:
    """The judge of this installation, if it has one."""
    if not settings.judge_url or not settings.judge_model:
        return None
    return Judge(url=settings.judge_url, model=settings.judge_model, key=SecretStr(settings.judge_key))
