"""Which pairs of segments share rows of the data, and splits into sides that share none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from .. import rng
from ..errors import InputError

if TYPE_CHECKING:
    from .preferences import Pairs
    from .segments import Segments


def row_ids(segments: Segments) -> Tensor:
    """[M, T] int64, the same number for the same row of the data.

    Rows of the data set where they are known; otherwise equal numbers for equal contents (observation and action), so
    that the same step in two segments of a file without row numbers is found out.
    """
    if bool((segments.row >= 0).all()):
        return segments.row.unsqueeze(1) + torch.arange(segments.length)
    step = torch.cat([segments.obs, segments.act], -1).flatten(0, 1).numpy()
    ids = np.unique(step, axis=0, return_inverse=True)[1]
    return torch.from_numpy(ids).reshape(len(segments), segments.length)


def blocks(segments: Segments) -> Tensor:
    """[M] int64, the same number for segments that are linked by shared rows, directly or through others."""
    ids = row_ids(segments)
    segment = torch.arange(len(ids)).unsqueeze(1).expand_as(ids)
    return _components(segment.flatten(), ids.flatten(), len(ids))


def groups(pairs: Pairs) -> Tensor:
    """[N] int64, the same number for pairs that are linked by shared rows, directly or through others."""
    block = blocks(pairs.segments)
    pair = torch.arange(len(pairs)).repeat(2)
    return _components(pair, torch.cat([block[pairs.first], block[pairs.second]]), len(pairs))


def folds(pairs: Pairs, count: int, key: Tensor) -> Tensor:
    """[N] the fold of each pair: whole groups of linked pairs in random order, each into the smallest fold so far.

    Raises:
        InputError: fewer than two folds, or fewer groups than folds.
    """
    group = groups(pairs)
    size = group.bincount().tolist()
    if not 2 <= count <= len(size):
        raise InputError(f"folds is {count}, expected 2 to {len(size)}: so many groups of pairs share no step")
    fold, room = torch.empty(len(size), dtype=torch.int64), [0] * count
    for chosen in rng.permutation(rng.fold(key, "folds"), len(size)).tolist():
        fold[chosen] = smallest = room.index(min(room))
        room[smallest] += size[chosen]
    return fold[group]


def split_groups(pairs: Pairs, target: int, key: Tensor) -> Tensor:
    """[N] bool, held out: whole groups of pairs linked by shared rows, in random order, up to ``target`` pairs."""
    group = groups(pairs)
    size = group.bincount().tolist()
    held = torch.zeros(len(size), dtype=torch.bool)
    room = target
    for chosen in rng.permutation(rng.fold(key, "groups"), len(size)).tolist():
        if size[chosen] <= room:
            held[chosen] = True
            room -= size[chosen]
    return held[group]


def split_rows(pairs: Pairs, target: int, key: Tensor) -> tuple[Tensor, Tensor]:
    """([N], [N]) bool, training and held out: random blocks of rows are held out until ``target`` pairs lie inside.

    A pair with one segment inside and one outside is on neither side.
    """
    block = blocks(pairs.segments)
    order = rng.permutation(rng.fold(key, "rows"), int(block.max()) + 1)
    place = order.argsort()[block]  # [M] when each segment's block is drawn
    first, second = place[pairs.first], place[pairs.second]
    later = torch.maximum(first, second)
    limit = later.sort().values[target - 1]  # blocks up to this one hold ``target`` pairs
    return torch.minimum(first, second) > limit, later <= limit


def _components(left: Tensor, right: Tensor, count: int) -> Tensor:
    """[count] component of each left node in the bipartite graph with edges (left, right)."""
    _, right_node = np.unique(right.numpy(), return_inverse=True)
    size = count + int(right_node.max()) + 1
    graph = coo_array((np.ones(len(left)), (left.numpy(), right_node + count)), shape=(size, size))
    component = connected_components(graph, directed=False)[1][:count]
    return torch.from_numpy(np.unique(component, return_inverse=True)[1])
