"""Wordings: a template is a combination of an opener, a body and a closer.

A quarter of the combinations is held out: `test`, `hard` and `ood` problems use only those, all other
splits never do. Each single fragment occurs on both sides, so what is unseen is the combination. That
is a mild shift, and the data page says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from random import Random

HELD_OUT_SPLITS = ("test", "hard", "ood")


def choose_template(rng: Random, split: str, *fragments: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Draw one allowed combination; returns its name (`"o1b0c2"`-like indices) and the fragments.

    The combinations whose indices sum to 3 modulo 4 are held out. Every list of fragments needs at
    least four entries in one place so that both sides hold each fragment.
    """
    held_out = split in HELD_OUT_SPLITS
    allowed = [
        combo
        for combo in product(*(range(len(part)) for part in fragments))
        if (sum(combo) % 4 == 3) == held_out
    ]
    combo = rng.choice(allowed)
    return ".".join(map(str, combo)), tuple(part[i] for part, i in zip(fragments, combo, strict=True))


DEPTHS = {
    "demonstrations": {1: 1, 2: 3, 3: 3},
    "train": {2: 3, 3: 3, 4: 2, 5: 1},
    "validation": {2: 3, 3: 3, 4: 2, 5: 1},
    "test": {2: 3, 3: 3, 4: 2, 5: 1},
    "hard": {5: 1, 6: 1},
    "ood": {2: 1, 3: 1},
}
"""Steps per problem and their weights, by split. The base's demonstrations end at three steps, training
at five; six-step problems occur in `hard` only."""


def choose_depth(rng: Random, split: str) -> int:
    """Draw the number of steps for one problem of `split`."""
    depths = DEPTHS[split]
    return rng.choices(list(depths), weights=list(depths.values()))[0]
