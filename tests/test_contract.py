"""Every algorithm in ``agents/`` keeps the contract, and the contract notices each kind of broken promise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import agents
from agents.offline.bc import BC, BCConfig
from agents.offline.iql import IQL, IQLConfig
from agents.on_policy.ppo import PPO, PPOConfig
from agents.preference.cpl import CPL, CPLConfig
from pbrl import rng
from pbrl.agent import Metrics
from pbrl.data.rollout import Rollout
from pbrl.data.source import Batch, LabelledPairs, Source, Transitions
from pbrl.members import Members
from pbrl.optim import Adam
from pbrl.spec import Spec

from . import contract
from .contract import CHECKS, Case, case_of


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", agents.names())
def test_contract(name: str, check: Callable[[Case], None]) -> None:
    check(case_of(name))


# Doubles: working learners with one planted error each.


@dataclass(frozen=True)
class IdleKnob(BCConfig):
    warmth: float = 1.0


class MixesMembers(BC):
    """Scales every member's gradient by the population's mean."""

    def update(self, batch: Batch) -> Metrics:
        before = [p.detach().clone() for p in self.policy.parameters()]
        metrics = super().update(batch)
        with torch.no_grad():
            for old, new in zip(before, self.policy.parameters()):
                new.add_(1e-3 * (new - old).mean(0, keepdim=True))
        return metrics


class MixesInSingle(MixesMembers):
    """The same."""


class DrawsGlobally(BC):
    """Takes its noise from torch's global generator."""

    def update(self, batch: Batch) -> Metrics:
        step = batch["transitions"]
        noisy = dataclasses.replace(step, obs=step.obs + 0.01 * torch.randn_like(step.obs))
        return super().update({"transitions": noisy})


class DrawsByPlace(BC):
    """Draws by a member's place in the stack instead of its key."""

    def update(self, batch: Batch) -> Metrics:
        step = batch["transitions"]
        noise = rng.normal(rng.fold(rng.keys(range(len(step.obs))), self.updates), *step.obs.shape[1:])
        return super().update({"transitions": dataclasses.replace(step, obs=step.obs + 0.01 * noise)})


class ForgetsState(BC):
    """Keeps what training changes outside the state_dict."""

    def __init__(self, spec: Spec, members: Members[BCConfig]) -> None:
        super().__init__(spec, members)
        self.drift = 0.0

    def update(self, batch: Batch) -> Metrics:
        self.drift += 0.01
        step = batch["transitions"]
        return super().update({"transitions": dataclasses.replace(step, obs=step.obs + self.drift)})


class LosesStatistics(BC):
    """Learns a shift of the observations and does not save it."""

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        return super().act(obs + 0.1 * self.updates * getattr(self, "shift", 0.0), key)

    def update(self, batch: Batch) -> Metrics:
        self.shift = batch["transitions"].obs.mean()
        return super().update(batch)


class IgnoresSeed(BC):
    """Gives every member the same key."""

    def __init__(self, spec: Spec, members: Members[BCConfig]) -> None:
        super().__init__(spec, dataclasses.replace(members, seeds=(0,) * len(members)))


class ReducesMetrics(BC):
    """Averages its metrics over the members."""

    def update(self, batch: Batch) -> Metrics:
        return {name: value.mean() for name, value in super().update(batch).items()}


class LeavesBounds(BC):
    """Gives actions outside [-1, 1]."""

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        return 3.0 + super().act(obs, key)


class JudgesInGraph(CPL):
    """Judges without leaving the graph."""

    def judge(self, obs: Tensor, act: Tensor) -> Tensor:
        return self.advantage(self.log_prob(obs, act))


class SharesKnob(BC):
    """Uses the largest dropout of the population for everyone."""

    def __init__(self, spec: Spec, members: Members[BCConfig]) -> None:
        most = max(config.dropout for config in members.configs)
        configs = tuple(dataclasses.replace(config, dropout=most) for config in members.configs)
        super().__init__(spec, dataclasses.replace(members, configs=configs))


class ClipsGlobally(BC):
    """Clips the gradient norm of the whole stack, so that one member's explosion stops the others."""

    def __init__(self, spec: Spec, members: Members[BCConfig]) -> None:
        super().__init__(spec, members)
        self.adam = GlobalClip(self.policy.parameters(), members.column("lr"))


class GlobalClip(Adam):
    def step(self, grads: Any, scale: float = 1.0) -> None:
        norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
        super().step([g / norm for g in grads], scale)


class PrefersWorse(CPL):
    """Reads labels the wrong way round."""

    def contrast(self, pairs: LabelledPairs, log_prob: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return super().contrast(dataclasses.replace(pairs, label=1.0 - pairs.label), log_prob)


class IgnoresRewards(IQL):
    """Learns as if there were no rewards."""

    def _losses(self, batch: Transitions, key: Tensor | None) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        return super()._losses(dataclasses.replace(batch, rew=torch.zeros_like(batch.rew)), key)


class IgnoresLabels(CPL):
    """Takes every pair for a tie."""

    def contrast(self, pairs: LabelledPairs, log_prob: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return super().contrast(dataclasses.replace(pairs, label=torch.full_like(pairs.label, 0.5)), log_prob)


class CountsTiesAsFirst(CPL):
    """Takes a tie for a win of the first segment."""

    def contrast(self, pairs: LabelledPairs, log_prob: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return super().contrast(dataclasses.replace(pairs, label=(pairs.label > 0.5).to(log_prob.dtype)), log_prob)


class IgnoresEnds(IQL):
    """Bootstraps past true ends."""

    def _losses(self, batch: Transitions, key: Tensor | None) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        return super()._losses(dataclasses.replace(batch, term=torch.zeros_like(batch.term)), key)


class BootstrapsPastEnds(PPO):
    """Takes true ends for time limits, in rollouts."""

    def rows(self, rollout: Rollout) -> Tensor:
        ended = torch.maximum(rollout.term, rollout.trunc)
        return super().rows(dataclasses.replace(rollout, term=torch.zeros_like(ended), trunc=ended))


class LosesItsPlace(PPO):
    """Counts rollouts outside the state_dict, and shuffles by that count."""

    rollouts = 0

    def shuffled(self, rows: Tensor, word: str, epoch: int) -> Tensor:
        self.rollouts += 1
        return super().shuffled(rows, word, epoch + self.rollouts)


class BlowsUpConstants(IQL):
    """Scales rewards by their span, however small."""

    def prepare(self, source: Source) -> Source:
        assert source.rew is not None
        return source.with_reward(source.rew * 1e9)


class DividesByZero(IQL):
    """Standardises rewards within the batch, also where they do not vary."""

    def _losses(self, batch: Transitions, key: Tensor | None) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        rew = (batch.rew - batch.rew.mean(1, keepdim=True)) / batch.rew.std(1, keepdim=True)
        return super()._losses(dataclasses.replace(batch, rew=rew), key)


class Explodes(IQL):
    """Exponentiates rewards as they come."""

    def prepare(self, source: Source) -> Source:
        return source

    def _losses(self, batch: Transitions, key: Tensor | None) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        return super()._losses(dataclasses.replace(batch, rew=batch.rew.abs().exp()), key)


class DisorderedStages(CPL):
    """Names a stage that lies before its first."""

    @property
    def boundaries(self) -> tuple[int, ...]:
        return (self.config.bc_updates, 0)


PLANTED: Mapping[type, tuple[type, Callable[[Case], None]]] = {
    MixesMembers: (BCConfig, contract.check_alone),
    DrawsGlobally: (BCConfig, contract.check_repeatable),
    DrawsByPlace: (BCConfig, contract.check_alone),
    MixesInSingle: (BCConfig, contract.check_alone_in_single),
    ForgetsState: (BCConfig, contract.check_resumes),
    LosesStatistics: (BCConfig, contract.check_resumes),
    IgnoresSeed: (BCConfig, contract.check_repeatable),
    ReducesMetrics: (BCConfig, contract.check_shapes),
    LeavesBounds: (BCConfig, contract.check_shapes),
    JudgesInGraph: (CPLConfig, contract.check_judgement),
    SharesKnob: (BCConfig, contract.check_knobs),
    BC: (IdleKnob, contract.check_knobs),
    ClipsGlobally: (BCConfig, contract.check_divergence),
    IgnoresRewards: (IQLConfig, contract.check_information),
    IgnoresLabels: (CPLConfig, contract.check_information),
    PrefersWorse: (CPLConfig, contract.check_information),
    CountsTiesAsFirst: (CPLConfig, contract.check_swap),
    IgnoresEnds: (IQLConfig, contract.check_endings),
    BootstrapsPastEnds: (PPOConfig, contract.check_endings),
    LosesItsPlace: (PPOConfig, contract.check_resumes),
    BlowsUpConstants: (IQLConfig, contract.check_constant),
    DividesByZero: (IQLConfig, contract.check_constant),
    Explodes: (IQLConfig, contract.check_scale),
    DisorderedStages: (CPLConfig, contract.check_stages),
}


@pytest.mark.parametrize("double", PLANTED, ids=lambda double: double.__name__)
def test_contract_has_teeth(double: type) -> None:
    config, check = PLANTED[double]
    with pytest.raises(AssertionError):
        check(Case(double.__name__, double, config))


def test_every_check_catches_something() -> None:
    assert {check for _, check in PLANTED.values()} == set(CHECKS)
