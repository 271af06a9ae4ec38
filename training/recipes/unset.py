"""The word `auto`, which a recipe says of what it leaves open."""

from typing import Literal

from typing_extensions import TypeIs

Auto = Literal["auto"]


def is_auto(value: object) -> TypeIs[Auto]:
    """Whether it is left open: type checkers do not see that `==` decides it."""
    return value == "auto"
