"""All that looks random comes from here, of a seed and names alone: the order of work has no influence."""

from __future__ import annotations

import hashlib
import math
import random

_SMALLEST = 10**37
"""Of 38 digits: UIDs below 2.25 are 128-bit integers without leading zeros (PS3.5 B.2), ours all as long."""


def chance(seed: int, *name: object) -> random.Random:
    """The dice for what has this name."""
    return random.Random(_joined(seed, name))


def uid(seed: int, *name: object) -> str:
    """The UID of what has this name; all are of one length, so that one can take another's place."""
    digest = hashlib.blake2b(_joined(seed, name).encode(), digest_size=20).digest()
    return f"2.25.{_SMALLEST + int.from_bytes(digest) % (9 * _SMALLEST)}"


def scattered(seed: int, name: str, number: int, digits: int) -> str:
    """A number of `digits` digits in no visible order, another one for each of the 10**digits numbers."""
    dice = chance(seed, name)
    span = 10**digits
    # What is coprime to the span permutes it.
    factor = next(n for n in iter(lambda: dice.randrange(span), None) if math.gcd(n, span) == 1)
    return f"{(number * factor + dice.randrange(span)) % span:0{digits}d}"


def _joined(seed: int, name: tuple[object, ...]) -> str:
    return f"{seed}/{'/'.join(map(str, name))}"
