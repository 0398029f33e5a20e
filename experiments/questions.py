"""Questions to learn from and held-out ones that share no episode, so that none has to be dropped."""

from __future__ import annotations

from torch import Tensor

from pbrl import rng
from pbrl.data import Dataset, Pairs
from pbrl.data.files import about
from pbrl.data.segments import windows
from pbrl.errors import InputError


def put_aside(dataset: Dataset, share: float, length: int, key: Tensor) -> tuple[Dataset, Dataset]:
    """Two parts of a data set: ``share`` of the episodes that have ``length`` steps, drawn by ``key``, and all others.

    Raises:
        InputError: a length that no episode has, or no episode for one of the parts.
    """
    long = windows(dataset, length).nonzero().squeeze(1)
    aside = round(share * len(long))
    if not 0 < aside < len(long):
        raise InputError(
            f"{dataset.name} has {len(long)} episodes of at least {length} steps of which the share {share:g} is held "
            "out, expected some to learn from and some to hold out"
        )
    order = long[rng.permutation(rng.fold(key, "held-out episodes"), len(long)).to(long.device)]
    held = dataset.start.new_zeros(len(dataset.start)).bool()
    held[order[:aside]] = True
    return dataset.rows(held), dataset.rows(~held)


def questions(
    held: Dataset, rest: Dataset, pairs: int, held_out_pairs: int, length: int, key: Tensor
) -> tuple[Pairs, Pairs]:
    """Pairs of the episodes to learn from, and pairs of those put aside, of segments of ``length`` steps.

    Raises:
        InputError: no pair, or too few windows in one of the parts.
    """
    training = Pairs.sample(rest, pairs, length, rng.fold(key, "pairs"))
    with about("held-out episodes"):
        return training, Pairs.sample(held, held_out_pairs, length, rng.fold(key, "held-out pairs"))
