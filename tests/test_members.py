"""Populations: which configs and seeds they hold, and what is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from pbrl import rng
from pbrl.errors import InputError
from pbrl.members import Members, check_range, is_shared, schedule_fields, shared, sweep


@dataclass(frozen=True)
class Config:
    lr: float = 0.1
    discount: float = 0.9
    flag: bool = False
    width: int = shared(8)
    sizes: tuple[int, ...] = shared((4, 4))
    warmup: int = shared(100, schedule="warmup")


def test_fields_are_swept_unless_shared() -> None:
    assert schedule_fields(Config(), "warmup", "stage") == ["warmup"]
    assert schedule_fields(Config(), "stage") == []
    assert [is_shared(field) for field in Config.__dataclass_fields__.values()] == [
        False,
        False,
        False,
        True,
        True,
        True,
    ]


def test_sweep_has_every_combination_with_seeds_varying_fastest() -> None:
    members = sweep(Config(), [7, 8], {"lr": [1.0, 2.0], "discount": [0.5, 0.6]})
    found = [(config.lr, config.discount, seed) for config, seed in zip(members.configs, members.seeds)]
    assert found == [
        (1.0, 0.5, 7),
        (1.0, 0.5, 8),
        (1.0, 0.6, 7),
        (1.0, 0.6, 8),
        (2.0, 0.5, 7),
        (2.0, 0.5, 8),
        (2.0, 0.6, 7),
        (2.0, 0.6, 8),
    ]


def test_a_shared_field_may_get_one_value() -> None:
    assert sweep(Config(), [0], {"width": [16]}).shared.width == 16


def test_sweep_passes_settings_on() -> None:
    members = sweep(Config(), [0], dtype=torch.float64, device="meta", compile=True)
    assert (members.dtype, members.device, members.compile) == (torch.float64, "meta", True)


def test_columns_are_one_number_per_member() -> None:
    members = sweep(Config(), [0, 1], {"lr": [1.0, 2.0]}, dtype=torch.float64)
    assert members.column("lr").dtype == torch.float64
    assert members.column("lr").tolist() == [1.0, 1.0, 2.0, 2.0]
    assert members.column("flag").tolist() == [0.0] * 4


def test_keys_depend_on_the_seed_alone() -> None:
    members = sweep(Config(), [5, 6], {"lr": [1.0, 2.0]})
    assert torch.equal(members.keys, rng.keys([5, 6, 5, 6]))


def test_take_chooses_members() -> None:
    members = sweep(Config(), [5, 6], {"lr": [1.0, 2.0]}, dtype=torch.float64).take([3, 0])
    assert [(config.lr, seed) for config, seed in zip(members.configs, members.seeds)] == [(2.0, 6), (1.0, 5)]
    assert members.dtype == torch.float64


@pytest.mark.parametrize(
    ("configs", "seeds", "message"),
    [
        ((), (), "at least one member"),
        ((Config(),), (0, 1), "1 configs but 2 seeds"),
        ((Config(), Config(width=9)), (0, 1), "width must be the same .* found 8, 9"),
        ((Config(), Config(sizes=(4,))), (0, 1), "sizes must be the same"),
    ],
)
def test_impossible_populations_are_refused(configs: tuple[Config, ...], seeds: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Members(configs, seeds)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alpha": [1.0]}, "unknown config field 'alpha', expected one of lr, discount"),
        ({"width": [8, 9]}, "width must be the same"),
        ({"lr": []}, "lr has no values"),
    ],
)
def test_impossible_sweeps_are_refused(values: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sweep(Config(), [0], values)


def test_no_seeds_are_refused() -> None:
    with pytest.raises(InputError, match="at least one member"):
        sweep(Config(), [])


@pytest.mark.parametrize(
    ("value", "bounds", "good"),
    [
        (0.0, {"low": 0.0}, True),
        (0.0, {"low": 0.0, "open_low": True}, False),
        (1e-9, {"low": 0.0, "open_low": True}, True),
        (1.0, {"low": 0.0, "high": 1.0}, True),
        (1.1, {"low": 0.0, "high": 1.0}, False),
        (-1.0, {"low": 0.0}, False),
        (math.nan, {"low": 0.0}, False),
        (math.inf, {"low": 0.0}, False),
    ],
)
def test_check_range(value: float, bounds: dict[str, Any], good: bool) -> None:
    if good:
        check_range(Config(lr=value), "lr", **bounds)
    else:
        with pytest.raises(InputError, match=r"Config\.lr is .*, expected (above|at least) 0"):
            check_range(Config(lr=value), "lr", **bounds)
