"""DPO on segments does what its papers say: the losses by hand, flips on average, and CPL-KL without its extras."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from agents.preference.cpl_kl import CPLKL, CPLKLConfig
from agents.preference.dpo import DPO, DPOConfig, Objective, segment_loss
from pbrl import rng
from pbrl.data.source import LabelledPairs
from pbrl.errors import InputError
from pbrl.members import sweep
from pbrl.parts import direct_preference as direct
from pbrl.spec import Spec

DOUBLE = torch.float64
SPEC = Spec("tiny", obs_size=3, act_size=2)
PLAIN = DPOConfig(hidden=(8,), dropout=0.0, bc_updates=2, batch_size=6)


def pairs(members: int, label: float | None = None) -> LabelledPairs:
    """The same six pairs of segments of four steps for every member."""
    key = rng.keys([7])
    obs = rng.normal(rng.fold(key, "obs"), 6, 2, 4, 3, dtype=DOUBLE).expand(members, -1, -1, -1, -1)
    act = (2.0 * rng.uniform(rng.fold(key, "act"), 6, 2, 4, 2, dtype=DOUBLE) - 1.0).expand(members, -1, -1, -1, -1)
    drawn = (rng.uniform(rng.fold(key, "label"), 6, dtype=DOUBLE) > 0.5).to(DOUBLE).expand(members, -1)
    return LabelledPairs(obs, act, drawn if label is None else torch.full_like(drawn, label))


def trained(config: DPOConfig, updates: int, **swept: list[float]) -> DPO:
    members = sweep(config, [0], swept, dtype=DOUBLE)
    learner = DPO(SPEC, members)
    for _ in range(updates):
        learner.update({"pairs": pairs(len(learner.keys))})
    return learner


def parameters(module: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_it_is_cpl_kl_without_bias_discount_and_warm_up() -> None:
    ours = trained(replace(PLAIN, beta=0.3), 9)
    config = CPLKLConfig(hidden=(8,), dropout=0.0, bc_updates=2, batch_size=6, alpha=0.3, bias=1.0, gamma=1.0, warmup=0)
    other = CPLKL(SPEC, sweep(config, [0], dtype=DOUBLE))
    for _ in range(9):
        other.update({"pairs": pairs(1)})
    torch.testing.assert_close(parameters(ours.policy), parameters(other.policy), rtol=1e-12, atol=1e-12)
    batch = pairs(1)
    torch.testing.assert_close(
        ours.judge(batch.obs[:, 0], batch.act[:, 0]), other.judge(batch.obs[:, 0], batch.act[:, 0])
    )


@pytest.mark.parametrize(
    ("objective", "loss"), [("dpo", math.log(2.0)), ("ipo", 0.25), ("slic", 1.0), ("jensen_shannon", math.log(2.0))]
)
def test_at_the_reference_each_loss_is_what_it_is_by_hand(objective: Objective, loss: float) -> None:
    """The policy is its own reference at the switch; whatever the labels and beta, the log-ratios are 0."""
    learner = trained(replace(PLAIN, objective=objective), 2, beta=[0.1, 2.0])
    found = learner.update({"pairs": pairs(2)})["loss"]
    torch.testing.assert_close(found, torch.full_like(found, loss), rtol=1e-13, atol=1e-13)
    assert ((learner.update({"pairs": pairs(2)})["loss"] - loss).abs() > 1e-9).all()


def test_the_losses_are_those_of_the_exact_checks() -> None:
    first, second, label = torch.tensor([[0.3, -1.2], [-0.4, 2.0], [0.2, 1.0]], dtype=DOUBLE)
    beta = torch.tensor(0.7, dtype=DOUBLE)
    ipo = segment_loss("ipo", first, second, label, beta)
    torch.testing.assert_close(ipo, 0.49 * direct.ipo(first, second, label, 0.7))
    by_hand = -torch.nn.functional.logsigmoid(0.7 * torch.tensor([-0.7, 3.2], dtype=DOUBLE))
    torch.testing.assert_close(segment_loss("dpo", first, second, torch.ones_like(label), beta), by_hand)
    hinge = segment_loss("slic", first, second, torch.ones_like(label), beta)
    torch.testing.assert_close(hinge, torch.tensor([1.49, 0.0], dtype=DOUBLE))


def test_with_the_rate_known_flipped_labels_teach_what_clean_ones_do_on_average() -> None:
    learner = trained(replace(PLAIN, imitation=0.3), 5, flips=[0.0, 0.2])
    track = {name: p.detach().clone() for name, p in learner.policy.named_parameters()}
    with torch.no_grad():  # both members get the weights of the first, so that their losses can be compared
        for name, p in learner.policy.named_parameters():
            p.copy_(track[name][:1].expand_as(p))
        for p in learner.reference.parameters():
            p.copy_(p[:1].expand_as(p).clone())
    key = rng.fold(learner.keys, "dropout", 0)
    kept, turned = (learner._loss(pairs(2, label), key, True)[0].detach() for label in (1.0, 0.0))
    assert float(0.8 * kept[1] + 0.2 * turned[1]) == pytest.approx(float(kept[0]), abs=1e-12)
    assert abs(float(kept[1] - kept[0])) > 1e-3


def test_imitation_raises_what_is_preferred() -> None:
    learner = trained(PLAIN, 400, imitation=[0.0, 5.0])
    batch = pairs(2)
    own, _ = learner.likelihoods(batch.obs, batch.act)
    preferred = torch.where(batch.label == 1.0, own[..., 1], own[..., 0]).mean(1)
    assert preferred[1] > preferred[0] + 1e-3


def test_there_must_be_a_reference() -> None:
    with pytest.raises(InputError, match="bc_updates is 0"):
        DPOConfig(bc_updates=0)
    with pytest.raises(InputError, match="flips"):
        DPOConfig(flips=0.5)
