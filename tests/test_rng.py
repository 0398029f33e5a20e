"""The generator passes statistical checks that bad generators fail, and never changes silently.

All keys are fixed, so nothing here is random: a check that passes once passes always. Thresholds are five standard
deviations or a p-value of 1e-5, what chance alone exceeds about once in a hundred thousand checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from pbrl import rng

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SIGMAS, RARE = 5.0, 1e-5

# --- the checks -------------------------------------------------------------------------------------------------------


def unit(word: Tensor) -> Tensor:
    """The upper 53 bits of int64 words as numbers in [0, 1)."""
    return ((word >> 11) & ((1 << 53) - 1)).double() * 2.0**-53


def bit_balance(word: Tensor) -> float:
    """The largest deviation, in standard deviations, of any of the 64 bits' means from a half."""
    flat = word.flatten()
    ones = torch.stack([((flat >> bit) & 1).sum() for bit in range(64)]).double()
    return float((2.0 * ones / len(flat) - 1.0).abs().max()) * math.sqrt(len(flat))


def correlation(one: Tensor, other: Tensor) -> float:
    """The correlation of two sets of words, in standard deviations."""
    pair = torch.stack([unit(one).flatten(), unit(other).flatten()])
    return abs(float(torch.corrcoef(pair)[0, 1])) * math.sqrt(pair.shape[1])


def byte_p_value(word: Tensor, shift: int) -> float:
    """p of the chi-square test that the byte above bit ``shift`` is uniform."""
    counts = torch.bincount(((word >> shift) & 255).flatten(), minlength=256).numpy()
    return float(stats.chisquare(counts).pvalue)


CHECKS: dict[str, Callable[[Tensor], bool]] = {
    "high byte": lambda w: RARE < byte_p_value(w, 56) < 1 - RARE,
    "middle byte": lambda w: RARE < byte_p_value(w, 28) < 1 - RARE,
    "low byte": lambda w: RARE < byte_p_value(w, 0) < 1 - RARE,
    "uniform": lambda w: RARE < float(stats.kstest(unit(w).flatten().numpy(), "uniform").pvalue) < 1 - RARE,
    "bits": lambda w: bit_balance(w) < SIGMAS,
    "rows": lambda w: correlation(w[1:], w[:-1]) < SIGMAS,
    "columns": lambda w: correlation(w[:, 1:], w[:, :-1]) < SIGMAS,
    "bits of rows": lambda w: bit_balance(w[1:] ^ w[:-1]) < SIGMAS,
    "bits of columns": lambda w: bit_balance(w[:, 1:] ^ w[:, :-1]) < SIGMAS,
    "duplicates": lambda w: len(w.unique()) == w.numel(),
}

# --- what they are applied to: [512 neighbours, 512 positions] --------------------------------------------------------

ONE = rng.keys([0])
STEPS = torch.arange(512)
NEIGHBOURS: dict[str, Callable[[], Tensor]] = {
    "seeds": lambda: rng.bits(rng.keys(range(512)), 512),
    "raw keys": lambda: rng.bits(STEPS, 512),
    "steps": lambda: rng.bits(rng.fold(ONE.expand(512), "batch", STEPS), 512),
    "late steps": lambda: rng.bits(rng.fold(ONE.expand(512), "batch", STEPS + 10**9), 512),
    "purposes": lambda: rng.bits(torch.cat([rng.fold(ONE, f"purpose {i}") for i in range(512)]), 512),
    "folded steps of neighbouring seeds": lambda: rng.bits(rng.fold(rng.keys(range(512)), "batch", STEPS), 512),
    "folds themselves": lambda: rng.fold(rng.keys(range(512)).repeat_interleave(512), STEPS.repeat(512)).view(512, 512),
}


def grid(key_step: int, count_step: int) -> Tensor:
    return torch.arange(512).unsqueeze(1) * key_step + torch.arange(512) * count_step


# Each deliberately bad generator, and checks that must see it.
BAD: dict[str, tuple[Callable[[], Tensor], set[str]]] = {
    "key plus counter": (lambda: grid(1, 1), {"high byte", "uniform", "bits", "rows", "columns", "duplicates"}),
    "Weyl sequence, no mixing": (lambda: grid(1, rng._GOLDEN), {"rows", "columns", "bits of rows"}),
    "one multiplication": (lambda: (grid(1, 512) + 1) * rng._M1, {"columns", "bits of columns"}),
    "one stream for all members": (lambda: rng.bits(ONE, 512).expand(512, -1), {"rows", "duplicates", "bits of rows"}),
    "members shifted by one position": (
        lambda: torch.stack([rng.bits(ONE, 1024)[0, i : i + 512] for i in range(512)]),
        {"duplicates"},
    ),
    "31 random bits": (lambda: rng.bits(rng.keys(range(512)), 512) & 0x7FFFFFFF, {"high byte", "bits", "uniform"}),
}


@pytest.mark.parametrize("neighbours", NEIGHBOURS)
def test_streams_of_neighbours_look_random(neighbours: str) -> None:
    word = NEIGHBOURS[neighbours]()
    assert [name for name, passes in CHECKS.items() if not passes(word)] == []


@pytest.mark.parametrize("bad", BAD)
def test_the_checks_see_bad_generators(bad: str) -> None:
    make, seen = BAD[bad]
    word = make()
    assert seen <= {name for name, passes in CHECKS.items() if not passes(word)}


# --- nothing twice ----------------------------------------------------------------------------------------------------


def test_a_million_draws_of_neighbouring_keys_are_distinct() -> None:
    assert len(rng.bits(rng.keys(range(1024)), 1024).unique()) == 1 << 20


def test_a_hundred_thousand_seeds_have_distinct_keys() -> None:
    assert len(rng.keys(torch.arange(100_001)).unique()) == 100_001


def test_folds_of_seeds_purposes_and_steps_do_not_collide() -> None:
    seeds = rng.keys(range(50)).unsqueeze(1)
    words = ("transitions", "pairs", "dropout", "policy", "q", "v", "reward", "weight", "bias", "first", "second")
    keys = [rng.fold(seeds.expand(-1, 1000), word, torch.arange(1000)) for word in words]
    assert len(torch.cat([seeds, *keys], dim=1).unique()) == 50 * (1 + 11 * 1000)


def test_the_order_of_folds_matters() -> None:
    assert rng.fold(ONE, 1, 2) != rng.fold(ONE, 2, 1)
    assert rng.fold(ONE, "a", 1) != rng.fold(ONE, 1, "a")
    assert rng.fold(ONE, 0) != ONE


# --- the same for a member wherever it is -----------------------------------------------------------------------------

LIMIT = torch.arange(1, 17) * 100
DRAWS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "fold": lambda key, limit: rng.fold(key, "word", 7, limit),
    "bits": lambda key, limit: rng.bits(key, 3, 5),
    "uniform": lambda key, limit: rng.uniform(key, 3, 5),
    "uniform64": lambda key, limit: rng.uniform(key, 3, 5, dtype=torch.float64),
    "normal": lambda key, limit: rng.normal(key, 3, 5, dtype=torch.float64),
    "indices": lambda key, limit: rng.indices(key, 9, 1000),
    "indices below each member's limit": lambda key, limit: rng.indices(key, 9, limit),
    "keep": lambda key, limit: rng.keep(key, 0.3, 3, 5),
    "keep at each member's rate": lambda key, limit: rng.keep(key, limit / 2000, 3, 5),
    "permutation": lambda key, limit: rng.permutation(key, 9),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("draw", DRAWS)
def test_a_member_draws_the_same_alone_in_any_place_and_on_any_device(draw: str, device: str) -> None:
    keys = rng.keys(range(16))
    together = DRAWS[draw](keys.to(device), LIMIT.to(device)).cpu()
    for place in range(16):
        alone = DRAWS[draw](keys[place : place + 1], LIMIT[place : place + 1])[0]
        # Logarithm and cosine may round differently on another device and for another length of the array.
        near = 1e-12 if draw == "normal" else 0.0
        torch.testing.assert_close(together[place], alone, rtol=near, atol=near)
    turned = DRAWS[draw](keys.flip(0).to(device), LIMIT.flip(0).to(device)).cpu().flip(0)
    torch.testing.assert_close(turned, together, rtol=near, atol=near)


@pytest.mark.parametrize("draw", ["bits", "uniform", "normal", "keep", "permutation"])
def test_a_key_without_population_axis_draws_without_one(draw: str) -> None:
    single = DRAWS[draw](rng.keys([3])[0], LIMIT[0])
    torch.testing.assert_close(single, DRAWS[draw](rng.keys([3]), LIMIT[:1])[0])


# --- frozen numbers ---------------------------------------------------------------------------------------------------


def test_the_stream_is_splitmix64() -> None:
    """The published first outputs for seed 1234567 (rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64)."""
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    drawn = rng.bits(torch.tensor(1234567), 5)
    assert [word % (1 << 64) for word in drawn.tolist()] == published


def test_numbers_are_frozen() -> None:
    """Computed once and copied here: every result that was ever published depends on them."""
    key = rng.fold(rng.keys([0, 1]), "batch", 3)
    assert rng.keys([0, 1, -1]).tolist() == [-7891858680218292670, -5771971638123053143, 7353260357707830663]
    assert rng.purpose("batch") == 723943608801201799
    assert key.tolist() == [-603115566336786166, 166140881164631006]
    assert rng.bits(key, 2).tolist() == [
        [-7186756372352993674, -1194308260944634232],
        [6288436803337375075, 8671131177542176893],
    ]
    assert rng.uniform(key, 2).tolist() == [
        [0.6104051470756531, 0.9352563619613647],
        [0.3408967852592468, 0.47006291151046753],
    ]
    assert rng.uniform(key, 2, dtype=torch.float64).tolist() == [
        [0.610405156398542, 0.935256419443322],
        [0.34089684218580907, 0.4700629630299009],
    ]
    assert rng.indices(key, 4, 1000).tolist() == [[610, 935, 208, 714], [340, 470, 542, 161]]
    assert rng.keep(key, 0.5, 8).int().tolist() == [[0, 1, 1, 0, 0, 1, 0, 1], [0, 1, 0, 0, 1, 0, 0, 0]]
    assert rng.permutation(key, 5).tolist() == [[0, 3, 4, 1, 2], [2, 4, 3, 0, 1]]
    normal = [[0.9600188463630539, 0.27158532143941405], [-1.4669391147431003, -0.18673523665689987]]
    torch.testing.assert_close(rng.normal(key, 2, dtype=torch.float64), torch.tensor(normal, dtype=torch.float64))


# --- distributions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "step"), [(torch.float32, 2.0**-24), (torch.float64, 2.0**-53)])
def test_uniform_is_below_one_and_on_its_lattice(dtype: torch.dtype, step: float) -> None:
    drawn = rng.uniform(rng.keys(range(64)), 1 << 12, dtype=dtype)
    assert drawn.dtype == dtype
    assert float(drawn.min()) >= 0.0
    assert float(drawn.max()) <= 1.0 - step
    assert torch.equal((drawn / step).round() * step, drawn)
    assert stats.kstest(drawn.double().flatten().numpy(), "uniform").pvalue > RARE


def test_normal_is_normal() -> None:
    drawn = rng.normal(rng.keys(range(64)), 1 << 14, dtype=torch.float64).flatten()
    assert stats.kstest(drawn.numpy(), "norm").pvalue > RARE
    count = len(drawn)
    # The variance of a sample's k-th moment is (m_2k - m_k^2) / n; the normal's moments are 1, 3, 15, 105.
    for power, moment, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        found = float(drawn.pow(power).mean())
        assert abs(found - moment) < SIGMAS * (variance / count) ** 0.5, f"moment {power} is {found}"


@pytest.mark.parametrize("bound", [2.0, 3.0, 4.0])
def test_tails_of_normal_have_their_weight(bound: float) -> None:
    drawn = rng.normal(rng.keys(range(64)), 1 << 14, dtype=torch.float64)
    for tail in (drawn > bound, drawn < -bound):
        expected = float(stats.norm.sf(bound)) * drawn.numel()
        assert abs(float(tail.sum()) - expected) < SIGMAS * expected**0.5


def test_keys_are_uncorrelated_in_normal_draws() -> None:
    drawn = rng.normal(rng.keys(range(128)), 4096, dtype=torch.float64)
    off = torch.corrcoef(drawn) - torch.eye(128, dtype=torch.float64)
    assert float(off.abs().max()) * 4096**0.5 < SIGMAS + 1.0  # the largest of 8128 correlations


@pytest.mark.parametrize("high", [2, 7, 100])
def test_indices_are_uniform(high: int) -> None:
    drawn = rng.indices(rng.keys(range(16)), 10_000, high)
    assert drawn.dtype == torch.int64
    counts = torch.bincount(drawn.flatten(), minlength=high)
    assert len(counts) == high
    assert stats.chisquare(counts.numpy()).pvalue > RARE


def test_indices_have_each_members_own_limit() -> None:
    limits = [2, 3, 1000]
    drawn = rng.indices(rng.keys(range(3)), 100_000, torch.tensor(limits))
    for row, limit in zip(drawn, limits):
        counts = torch.bincount(row, minlength=limit)
        assert len(counts) == limit
        assert stats.chisquare(counts.numpy()).pvalue > RARE


def test_one_choice_is_always_taken() -> None:
    assert not rng.indices(rng.keys(range(8)), 1000, 1).any()


@pytest.mark.parametrize(("rate", "kept"), [(0.0, 1.0), (0.1, 1 - 26 / 256), (0.25, 0.75), (0.5, 0.5), (0.99, 3 / 256)])
def test_keep_keeps_its_share(rate: float, kept: float) -> None:
    found = float(rng.keep(rng.keys(range(16)), rate, 1 << 14).double().mean())
    assert abs(found - kept) <= SIGMAS * (kept * (1 - kept) / (1 << 18)) ** 0.5


def test_keep_has_each_members_own_rate() -> None:
    found = rng.keep(rng.keys(range(3)), torch.tensor([0.0, 0.25, 0.75]), 64, 1024).double().mean((1, 2))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.75, 0.25]).double(), atol=0.01, rtol=0.0)


def test_kept_places_do_not_depend_on_each_other() -> None:
    """Eight bytes come from one draw: neighbours inside it are as independent as any."""
    kept = rng.keep(rng.keys(range(16)), 0.5, 1 << 14).double()
    for lag in (1, 2, 7, 8):
        product = (2 * kept[:, lag:] - 1) * (2 * kept[:, :-lag] - 1)
        assert abs(float(product.mean())) * product.numel() ** 0.5 < SIGMAS


def test_permutation_is_one_per_key() -> None:
    order = rng.permutation(rng.keys(range(4)), 1000)
    assert torch.equal(order.sort(dim=1).values, torch.arange(1000).expand(4, -1))
    assert len({tuple(row.tolist()) for row in order}) == 4


def test_every_permutation_is_equally_likely() -> None:
    order = rng.permutation(rng.keys(range(24_000)), 4)
    number = (order * torch.tensor([64, 16, 4, 1])).sum(1).unique(return_counts=True)[1]
    assert len(number) == 24
    assert stats.chisquare(number.numpy()).pvalue > RARE
