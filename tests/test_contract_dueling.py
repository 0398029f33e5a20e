"""Every algorithm in ``agents/dueling/`` keeps its contract, and the contract notices each kind of broken promise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import agents
from agents.dueling.pr_ts import PRTS, PRTSConfig
from experiments import cli
from pbrl.errors import InputError
from pbrl.members import Members
from pbrl.theory.dueling import Bools, Duel, DuelingSpec, Trajectories
from pbrl.theory.learner import Metrics
from pbrl.theory.mdps import Floats

from . import contract_dueling as contract
from .contract_dueling import CHECKS, Case


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", agents.dueling_names())
def test_contract(name: str, check: Callable[[Case], None]) -> None:
    found = agents.find_dueling(name)
    check(Case(name, found.make, found.config))


# Doubles: working learners with one planted error each.


class Restless(PRTS):
    """Samples anew whenever it is asked for its plan."""

    calls = 0

    def plan(self) -> Duel:
        self.calls += 1
        self._planned = np.full(self.previous.shape, self.calls % 2, dtype=np.int64)
        return Duel(self._planned, self.previous)


class MixesMembers(PRTS):
    """Shows every member the mean of all likelihoods."""

    def update(self, first: Trajectories, second: Trajectories, asked: Bools, label: Floats) -> Metrics:
        metrics = super().update(first, second, asked, label)
        self.of_reward[:] = self.of_reward.mean(0)
        return metrics


class IgnoresSeed(PRTS):
    """Gives every member the same key."""

    def __init__(self, spec: DuelingSpec, members: Members[PRTSConfig]) -> None:
        super().__init__(spec, dataclasses.replace(members, seeds=(0,) * len(members)))


class ForgetsState(PRTS):
    """Does not restore what the answers said."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.of_reward[:] = 0.0


@dataclass(frozen=True)
class IdleKnob(PRTSConfig):
    lam: float = 1.0
    """Read by nobody."""


class Deaf(PRTS):
    """Hears the opposite of every answer."""

    def update(self, first: Trajectories, second: Trajectories, asked: Bools, label: Floats) -> Metrics:
        return super().update(first, second, asked, 1.0 - label)


PLANTED: Mapping[type, tuple[type[Any], Callable[[Case], None]]] = {
    Restless: (PRTSConfig, contract.check_shapes),
    MixesMembers: (PRTSConfig, contract.check_alone),
    IgnoresSeed: (PRTSConfig, contract.check_repeatable),
    ForgetsState: (PRTSConfig, contract.check_resumes),
    PRTS: (IdleKnob, contract.check_knobs),
    Deaf: (PRTSConfig, contract.check_learns),
}


@pytest.mark.parametrize("double", PLANTED, ids=lambda double: double.__name__)
def test_contract_has_teeth(double: type[Any]) -> None:
    config, check = PLANTED[double]
    with pytest.raises(AssertionError):
        check(Case(double.__name__, double, config))


def test_every_check_catches_something() -> None:
    assert {check for _, check in PLANTED.values()} == set(CHECKS)


def test_each_list_points_to_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert not set(agents.names()) & set(agents.dueling_names())
    assert not set(agents.tabular_names()) & set(agents.dueling_names())
    assert cli.main(["train", "pr_lsvi"]) == 2
    assert "pbrl regret STUDY --agents pr_lsvi" in capsys.readouterr().err
    with pytest.raises(InputError, match="unknown dueling agent 'pr_tss'"):
        agents.find_dueling("pr_tss")
