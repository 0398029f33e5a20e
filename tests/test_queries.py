"""Query samplers on cases small enough to enumerate."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from pbrl import rng
from pbrl.asking.queries import Query, candidates, choose, disagreement, entropy, k_centre, largest
from pbrl.errors import InputError

DOUBLE = torch.float64


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=DOUBLE)


def some(members: int, *shape: int) -> Tensor:
    return rng.uniform(rng.fold(rng.keys(range(members)), "some"), *shape, dtype=DOUBLE)


def test_disagreement_is_the_deviation_over_the_ensemble() -> None:
    p2 = torch.stack([numbers(0.0, 0.5, 0.2), numbers(1.0, 0.5, 0.4)])[None]  # two copies, three pairs
    torch.testing.assert_close(disagreement(p2), numbers(0.5, 0.0, 0.1)[None])


def test_entropy_is_the_mean_over_the_ensemble_and_not_that_of_the_mean() -> None:
    p2 = torch.stack([numbers(0.0, 0.5, 0.25), numbers(1.0, 0.5, 0.25)])[None]
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    torch.testing.assert_close(entropy(p2), numbers(0.0, math.log(2.0), quarter)[None])


def test_largest_is_in_order_and_takes_the_earlier_of_equals() -> None:
    assert largest(numbers(1.0, 3.0, 3.0, 2.0, 3.0)[None], 4).tolist() == [[1, 2, 4, 3]]


def greedy(points: list[float], centres: list[float], count: int) -> list[int]:
    """k-centre on a line by its definition."""
    chosen: list[int] = []
    for _ in range(count):
        gaps = [
            -1.0 if i in chosen else min((abs(x - c) for c in centres + [points[j] for j in chosen]), default=math.inf)
            for i, x in enumerate(points)
        ]
        chosen.append(gaps.index(max(gaps)))
    return chosen


@pytest.mark.parametrize("centres", [[], [0.0], [0.0, 10.0]])
def test_k_centre_on_a_line(centres: list[float]) -> None:
    for points in itertools.permutations([1.0, 2.0, 4.0, 7.0, 9.5]):
        found = k_centre(
            numbers(*points)[None, :, None],
            numbers(*centres).reshape(1, -1, 1),
            torch.ones(1, len(centres), dtype=torch.bool),
            4,
        )
        assert found[0].tolist() == greedy(list(points), centres, 4)


def test_k_centre_is_within_twice_the_best_radius() -> None:
    """Gonzalez (1985): greedy k-centre is a 2-approximation. The best three centres are found by enumeration."""
    points = some(4, 9, 2)
    chosen = k_centre(points, points[:, :0], torch.ones(4, 0, dtype=torch.bool), 3)
    for member in range(4):
        far = torch.cdist(points[member], points[member])
        best = min(float(far[list(three)].amin(0).max()) for three in itertools.combinations(range(9), 3))
        assert float(far[chosen[member]].amin(0).max()) <= 2.0 * best


def test_k_centre_avoids_what_was_asked_and_never_chooses_twice() -> None:
    points = numbers(0.0, 0.0, 5.0, 5.0, 5.1)[None, :, None]
    asked, known = numbers(5.0, 0.0)[None, :, None], torch.tensor([[True, False]])
    assert k_centre(points, asked, known, 5)[0].tolist() == [0, 4, 1, 2, 3]


def test_the_named_ways_of_choosing() -> None:
    p2 = torch.stack([numbers(0.1, 0.5, 0.8, 0.5), numbers(0.1, 0.5, 0.2, 0.7)])[None]
    points = numbers(0.0, 1.0, 9.0, 10.0)[None, :, None]
    given = {"p2": p2, "points": points, "asked": numbers(0.0)[None, :, None], "known": torch.ones(1, 1) > 0}

    def chosen(query: Query, count: int) -> list[int]:
        found = choose(query, count, 4, **given)
        assert found is not None
        return [int(i) for i in found[0]]

    assert choose("uniform", 2, 4) is None
    assert chosen("disagreement", 2) == [2, 3]
    assert chosen("entropy", 2) == [1, 3]
    assert chosen("k_centre", 3) == [3, 1, 2]
    assert chosen("k_centre_disagreement", 2) == [3, 2]  # of 2 and 3, the farthest from 0 first
    assert chosen("k_centre_entropy", 2) == [3, 1]
    assert chosen("k_centre_entropy", 3) == [3, 1, 2]  # half of four are two: too few, so that the pool grows


@pytest.mark.parametrize("query", get_args(Query))
def test_members_choose_for_themselves(query: Query) -> None:
    p2, points, asked = some(5, 3, 20), some(5, 20, 4), some(5, 6, 4)
    known = torch.arange(6) < torch.arange(5)[:, None]  # 0 to 4 questions asked before
    together = choose(query, 4, 20, p2=p2, points=points, asked=asked, known=known)
    for member in range(5):
        row = slice(member, member + 1)
        few = asked[row, :member]  # and padding is no question
        alone = choose(query, 4, 20, p2=p2[row], points=points[row], asked=few, known=known[row, :member])
        if together is None or alone is None:
            assert query == "uniform"
            continue
        assert torch.equal(together[row], alone)
        assert together[member].unique().numel() == 4


@pytest.mark.parametrize("query", get_args(Query))
def test_the_first_n_are_the_choice_of_n(query: Query) -> None:
    given = {"p2": some(2, 3, 20), "points": some(2, 20, 4), "asked": some(2, 1, 4), "known": torch.ones(2, 1) > 0}
    many, few = choose(query, 8, 20, **given), choose(query, 3, 20, **given)
    if query != "uniform":
        assert many is not None
        assert few is not None
        assert torch.equal(many[:, :3], few)


def test_candidates() -> None:
    assert candidates("uniform", 7) == 7
    assert candidates("k_centre", 7) == candidates("disagreement", 7) == 70
    assert candidates("entropy", 7, factor=3) == 21


@pytest.mark.parametrize(
    ("query", "count", "message"),
    [
        ("disagreement", 5, "5 questions are to be chosen from 4"),
        ("disagreement", 2, "query 'disagreement' needs the predictions"),
        ("k_centre_entropy", 2, "query 'k_centre_entropy' needs the predictions"),
        ("k_centre", 2, "query 'k_centre' needs the pairs as points"),
    ],
)
def test_what_is_missing_is_named(query: Query, count: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose(query, count, 4)
