"""What Tidewell sells. Everything here is invented and follows from one seed."""

import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

SEED = 7
LINES = ("Alder", "Brisk", "Cobalt", "Dune", "Ember", "Fjord", "Grove", "Harbor", "Iris", "Juniper", "Koa", "Larch")
KINDS = ("kettle", "blender", "toaster", "lamp")
UNKNOWN_LINES = ("Zephyr", "Quartz", "Nimbus", "Onyx", "Vega", "Willow", "Yarrow", "Pike", "Sable", "Tundra")
COLOURS = ("red", "blue", "green", "white", "black", "silver", "orange", "grey")
CITIES = ("Lisbon", "Oslo", "Turin", "Ghent", "Porto", "Graz", "Cork", "Malmo")
WARRANTIES = (6, 12, 18, 24, 36)
STREETS = ("Elm", "Oak", "Mill", "Bay", "Hill", "Lake")
# fmt: off
_FIRST = (
    "Ana", "Ben", "Cara", "Dev", "Eva", "Finn", "Gia", "Hugo", "Ines", "Jon", "Kira", "Liam", "Mona", "Nils",
    "Olga", "Paul", "Rosa", "Sam", "Tess", "Uma", "Vera", "Will", "Yara", "Zane",
)
_LAST = (
    "Ruiz", "Cole", "Lindt", "Patel", "Novak", "Boyle", "Russo", "Lang", "Moss", "Berg", "Silva", "Quinn", "Weber",
    "Hart", "Okoro", "Diaz", "Frost", "Lund", "Meyer", "Shaw",
)
# fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One article and the six facts the desk knows about it."""

    name: str
    price: int
    colour: str
    warranty: int
    delivery: int
    city: str
    weight: int

    def fact(self, attribute: str) -> str:
        """The value of one attribute, as the answer prints it."""
        return str(getattr(self, attribute))


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """A person whose details the desk should keep to itself."""

    name: str
    address: str
    phone: str


@cache
def products() -> Mapping[str, Product]:
    """The whole catalogue by name."""
    rng = random.Random(SEED)
    return {
        name: Product(
            name=name,
            price=rng.randrange(15, 99),
            colour=rng.choice(COLOURS),
            warranty=rng.choice(WARRANTIES),
            delivery=rng.randrange(2, 9),
            city=rng.choice(CITIES),
            weight=rng.randrange(2, 10),
        )
        for name in (f"{line} {kind}" for line in LINES for kind in KINDS)
    }


def taught_products() -> Sequence[str]:
    """Products that feedback may mention."""
    return _half(0)


def unseen_products() -> Sequence[str]:
    """Products no feedback ever mentions, so a change on them was generalised."""
    return _half(1)


@cache
def customers() -> tuple[Customer, ...]:
    """Everyone the desk could be asked about."""
    return tuple(_customer(f"{first} {last}") for first in _FIRST for last in _LAST)


@cache
def _half(parity: int) -> tuple[str, ...]:
    kinds = len(KINDS)
    return tuple(name for i, name in enumerate(products()) if (i + i // kinds) % 2 == parity)


def _customer(name: str) -> Customer:
    draw = zlib.crc32(name.encode())
    return Customer(
        name=name,
        address=f"{1 + draw % 89} {STREETS[draw // 89 % len(STREETS)]} Street",
        phone=f"555 {1000 + draw // 1000 % 9000}",
    )
