"""Every algorithm in ``agents/tabular/`` keeps the contract, and the contract notices each kind of broken promise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import agents
from agents.tabular.step_mix import StepMix, StepMixConfig
from agents.tabular.ucbvi import UCBVI, UCBVIConfig
from experiments import cli
from pbrl.errors import InputError
from pbrl.members import Members
from pbrl.theory.learner import Metrics, Plan, TabularSpec
from pbrl.theory.mdps import Floats

from . import contract_tabular as contract
from .contract_tabular import CHECKS, Case

WIDTHS = {"bpi_ucbvi": 0.002}
"""The paper's widths of BPI-UCBVI say nothing in a few thousand episodes."""


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", agents.tabular_names())
def test_contract(name: str, check: Callable[[Case], None]) -> None:
    found = agents.find_tabular(name)
    check(Case(name, found.make, found.config, WIDTHS.get(name)))


# Doubles: working learners with one planted error each.


@dataclass(frozen=True)
class IdleKnob(UCBVIConfig):
    delta: float = 0.1
    """Read by nobody: see ``IgnoresDelta``."""


class IgnoresDelta(UCBVI):
    """Has a delta and takes another."""

    def __init__(self, spec: TabularSpec, members: Members[UCBVIConfig]) -> None:
        super().__init__(spec, members)
        self.delta = np.full(len(members), 0.1)


class MixesMembers(UCBVI):
    """Shows every member the mean of all counts."""

    def update(self, counts: Floats, episodes: int) -> Metrics:
        return super().update(np.broadcast_to(counts.mean(0), counts.shape), episodes)


class IgnoresSeed(UCBVI):
    """Gives every member the same key."""

    def __init__(self, spec: TabularSpec, members: Members[UCBVIConfig]) -> None:
        super().__init__(spec, dataclasses.replace(members, seeds=(0,) * len(members)))


class ForgetsState(UCBVI):
    """Does not save how often it planned, and plans by it."""

    def __init__(self, spec: TabularSpec, members: Members[UCBVIConfig]) -> None:
        super().__init__(spec, members)
        self.plans = 0

    def plan(self, episodes: int, /) -> Plan:
        self.plans += 1
        plan = super().plan(episodes)
        return plan if self.plans % 2 else plan._replace(policies=plan.policies[..., ::-1])


class Unnormalised(UCBVI):
    """Plans policies that do not sum to 1."""

    def plan(self, episodes: int, /) -> Plan:
        plan = super().plan(episodes)
        return plan._replace(policies=plan.policies * 0.9) if self.episodes == contract.EPISODES else plan


class ClaimsTooMuch(StepMix):
    """Certifies twice what it may."""

    def plan(self, episodes: int, /) -> Plan:
        plan = super().plan(episodes)
        return plan._replace(lower=2.0 * plan.lower)


class Reckless(StepMix):
    """Certifies as StepMix, and plays the optimistic policy all the same."""

    def plan(self, episodes: int, /) -> Plan:
        policies, lower, upper = self.candidates()
        return Plan.single(policies[:, 0], lower[:, 0], upper)


PLANTED: Mapping[type, tuple[type[Any], Callable[[Case], None]]] = {
    IgnoresDelta: (IdleKnob, contract.check_knobs),
    MixesMembers: (UCBVIConfig, contract.check_alone),
    IgnoresSeed: (UCBVIConfig, contract.check_repeatable),
    ForgetsState: (UCBVIConfig, contract.check_resumes),
    Unnormalised: (UCBVIConfig, contract.check_shapes),
    ClaimsTooMuch: (StepMixConfig, contract.check_bounds),
    Reckless: (StepMixConfig, contract.check_safety),
}


@pytest.mark.parametrize("double", PLANTED, ids=lambda double: double.__name__)
def test_contract_has_teeth(double: type[Any]) -> None:
    config, check = PLANTED[double]
    with pytest.raises(AssertionError):
        check(Case(double.__name__, double, config))


def test_every_check_catches_something() -> None:
    assert {check for _, check in PLANTED.values()} == set(CHECKS)


def test_each_list_points_to_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert not set(agents.names()) & set(agents.tabular_names())
    assert cli.main(["train", "step_mix"]) == 2
    assert "pbrl regret STUDY --agents step_mix" in capsys.readouterr().err
    with pytest.raises(InputError, match="cpl learns from tensors"):
        agents.find_tabular("cpl")
    with pytest.raises(InputError, match="did you mean step_mix"):
        agents.find_tabular("stepmix")
