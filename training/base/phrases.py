"""How one question gets many wordings: small grammars, and polite or hurried dress around them."""

import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

from training.errors import NotEnoughText

#: One question in this many is never shown in pre-training, in any dress.
HELD_OUT_ONE_IN = 6

OPENERS = (
    "",
    "Hi, ",
    "Hello, ",
    "Hey, ",
    "Good morning, ",
    "Quick question: ",
    "Excuse me, ",
    "Sorry to bother you, ",
    "One more thing: ",
    "Just wondering, ",
    "Dear team, ",
    "Hello again, ",
)
CLOSERS = (
    "",
    " please",
    " Thanks.",
    " Thank you!",
    " Thanks in advance.",
    " I could not find it online.",
    " It is urgent.",
    " Cheers.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dress:
    """What surrounds a question without changing what is asked."""

    opener: str = ""
    closer: str = ""
    lower: bool = False


BARE = Dress()


def held(text: str) -> bool:
    """Whether this text is kept for evaluation. Case does not matter."""
    return zlib.crc32(text.lower().encode()) % HELD_OUT_ONE_IN == 0


def expand(grammar: str) -> Iterator[str]:
    """All readings of a grammar: `(a|b|)` is a choice, choices do not nest."""
    parts = [piece.split("|") for piece in grammar.replace(")", "(").split("(")]
    for choice in product(*parts):
        yield " ".join("".join(choice).split())


@cache
def wordings(grammars: tuple[str, ...]) -> tuple[str, ...]:
    """Every distinct reading of several grammars, in a stable order."""
    return tuple(dict.fromkeys(text for grammar in grammars for text in expand(grammar)))


def dressed(text: str, dress: Dress) -> str:
    """The question as a customer would type it."""
    if dress.opener and not text.startswith("I "):
        text = text[0].lower() + text[1:]
    if dress.closer == " please":
        text = f"{text.removesuffix('?')} please{'?' if text.endswith('?') else ''}"
    elif dress.closer:
        text = f"{text if text.endswith(('?', '.', '!')) else text + '.'}{dress.closer}"
    text = dress.opener + text
    return text.lower() if dress.lower else text


@cache
def dresses(*, seen: bool) -> tuple[Dress, ...]:
    """Opener and closer pairs pre-training uses (`seen`), or the ones it never combines."""
    pairs = [(opener, closer) for opener in OPENERS for closer in CLOSERS]
    lone = [pair for pair in pairs if not all(pair)]
    both = [pair for pair in pairs if all(pair)]
    chosen = [*lone, *(p for p in both if not held("".join(p)))] if seen else [p for p in both if held("".join(p))]
    return tuple(Dress(opener=o, closer=c, lower=lower) for o, c in chosen for lower in (False, True))


def any_dress(rng: random.Random) -> Dress:
    """A dress for pre-training: bare as often as not."""
    if rng.random() < 0.45:
        return Dress(lower=rng.random() < 0.2)
    return rng.choice(dresses(seen=True))


def distinct(texts: Sequence[str], count: int, seed: int) -> list[tuple[str, str]]:
    """`count` distinct (bare, dressed) texts, every bare one used before any is used again. NotEnoughText."""
    rng = random.Random(seed)
    order = list(texts)
    rng.shuffle(order)
    wardrobe = (*dresses(seen=True), *dresses(seen=False))
    found: dict[str, str] = {text: text for text in order[:count]}
    spent = 0
    while len(found) < count:
        if spent > 40 * count:
            raise NotEnoughText(f"only {len(found)} of {count} distinct texts can be made")
        text = order[spent % len(order)]
        found.setdefault(dressed(text, rng.choice(wardrobe)), text)
        spent += 1
    return [(bare, worn) for worn, bare in found.items()]
