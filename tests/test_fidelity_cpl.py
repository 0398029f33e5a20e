"""CPL does what its paper proves: identities, consistency and bias in tabular MDPs, and the agents' own losses."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from agents.preference.cpl import CPL, CPLConfig, cloning
from agents.preference.cpl_bc import CPLBC, CPLBCConfig
from agents.preference.cpl_kl import CPLKL, CPLKLConfig
from pbrl import losses, rng
from pbrl.data.source import LabelledPairs
from pbrl.members import Members, sweep
from pbrl.spec import Spec

from .tabular import DOUBLE, bernoulli_labels, divergence, fit, random_mdp, segments

# --- tabular: 8 states, 3 actions, gamma .95, alpha .5, segments of 5 steps -------------------------------------------

MDPS = range(6)
COUNTS = (1_000, 10_000, 100_000)


class Study(NamedTuple):
    """KL(pi* || fitted) of one MDP: by number of regret labels, with bias .5, from partial-return labels."""

    unbiased: dict[int, float]
    biased: dict[int, float]
    partial_return: dict[int, float]
    exact: float
    argmax: bool


@cache
def study(seed: int) -> Study:
    mdp = random_mdp(rng.keys([seed])[0])
    advantage = mdp.advantage()
    found = Study({}, {}, {}, 0.0, False)
    for count in COUNTS:
        key = rng.fold(rng.keys([seed + 100])[0], count)
        first, second = (segments(mdp, count, 5, rng.fold(key, word)) for word in ("first", "second"))
        regret = (second - first) @ advantage.flatten()
        label = bernoulli_labels(regret, key)
        partial = bernoulli_labels((second - first) @ mdp.reward.flatten(), key)
        found.unbiased[count] = divergence(mdp, fit(mdp, first, second, label, 1.0))
        biased = fit(mdp, first, second, label, 0.5)
        found.biased[count] = divergence(mdp, biased)
        found.partial_return[count] = divergence(mdp, fit(mdp, first, second, partial, 1.0))
    exact = divergence(mdp, fit(mdp, first, second, regret.sigmoid(), 1.0))
    best = (advantage / mdp.alpha).topk(2, dim=1).values
    clear = best[:, 0] - best[:, 1] > 0.1  # two actions as good as equal may be exchanged by the bias
    assert clear.sum() > len(clear) / 2
    right = (biased.argmax(1) == advantage.argmax(1))[clear].all()
    return found._replace(exact=exact, argmax=bool(right))


@pytest.mark.parametrize("seed", range(10))
def test_the_soft_optimal_advantage_is_a_log_probability(seed: int) -> None:
    """T1: sum_a exp(A* / alpha) = 1, which is why CPL needs no value."""
    mdp = random_mdp(rng.keys([seed])[0], states=6 + seed, actions=2 + seed % 4)
    total = (mdp.advantage() / mdp.alpha).exp().sum(1)
    assert float((total - 1.0).abs().max()) < 1e-9


@pytest.mark.parametrize(("count", "expected"), [(1_000, 2e-2), (10_000, 1.2e-3), (100_000, 1.2e-4)])
def test_maximum_likelihood_is_consistent(count: int, expected: float) -> None:
    """T2: the mean KL falls as 1 / labels.

    One MDP can be as low as 3e-5 at 100,000; the six here average 1.2e-4.
    """
    mean = sum(study(seed).unbiased[count] for seed in MDPS) / len(MDPS)
    assert expected / 3 < mean < 3 * expected


def test_every_mdps_divergence_falls_with_more_labels() -> None:
    for seed in MDPS:
        small, middle, large = (study(seed).unbiased[count] for count in COUNTS)
        assert 0 <= large < middle < small
        assert middle < 3e-3
    assert min(study(seed).unbiased[100_000] for seed in MDPS) < 9e-5


def test_without_label_noise_the_optimal_policy_is_found_exactly() -> None:
    assert max(study(seed).exact for seed in MDPS) < 1e-8


def test_bias_below_one_is_inconsistent_but_ranks_actions_rightly() -> None:
    """T3: at bias .5 the KL stays near .15, however many labels, though the argmax is right."""
    mean = sum(study(seed).biased[100_000] for seed in MDPS) / len(MDPS)
    assert 0.1 < mean < 0.3
    for seed in MDPS:
        assert study(seed).biased[100_000] == pytest.approx(study(seed).biased[10_000], rel=0.15)
        assert study(seed).argmax


def test_partial_return_labels_mislead_a_regret_model() -> None:
    """A5: the KL stays at some hundredths: the model is wrong about such labels."""
    for seed in MDPS:
        found = study(seed).partial_return
        assert 0.01 < found[100_000] < 0.3
        assert found[100_000] > 0.5 * found[10_000]
        assert found[100_000] > 50 * study(seed).unbiased[100_000]


@pytest.mark.parametrize(("flip", "bias"), [(True, 1.0), (False, -1.0)], ids=["labels flipped", "sign of the bias"])
def test_broken_versions_find_another_policy(flip: bool, bias: float) -> None:
    """What the tests above would see of a version with this fault: 50 times the divergence, and other best actions."""
    mdp, key = random_mdp(rng.keys([0])[0]), rng.fold(rng.keys([100])[0], 10_000)
    first, second = (segments(mdp, 10_000, 5, rng.fold(key, word)) for word in ("first", "second"))
    label = bernoulli_labels((second - first) @ mdp.advantage().flatten(), key)
    found = fit(mdp, first, second, 1.0 - label if flip else label, bias)
    assert divergence(mdp, found) > 50 * study(0).unbiased[10_000]
    assert (found.argmax(1) != mdp.advantage().argmax(1)).any()


# --- the agents' losses -----------------------------------------------------------------------------------------------

SPEC = Spec("test", 3, 2)
SMALL: dict[str, Any] = {"hidden": (8,), "batch_size": 6, "dropout": 0.0, "lr": 1e-2}


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=DOUBLE)


def pairs(members: int, *, label: float | None = None, count: int = 6, length: int = 4) -> LabelledPairs:
    """The same random batch for each of ``members``."""
    key = rng.keys([40])[0]
    obs = rng.normal(rng.fold(key, "obs"), count, 2, length, 3, dtype=DOUBLE)
    act = 2 * rng.uniform(rng.fold(key, "act"), count, 2, length, 2, dtype=DOUBLE) - 1
    labels = rng.indices(rng.fold(key, "label"), count, 3) / 2 if label is None else torch.full((count,), label)
    return LabelledPairs(*(x.expand(members, *x.shape) for x in (obs, act, labels.to(DOUBLE))))


def compare(
    alpha: Tensor, gamma: Tensor, bias: Tensor, log_prob: Tensor, label: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """CPL's loss of given log-probabilities [P, B, 2, T] and labels [P, B], for members with these settings [P]."""
    settings = zip(alpha.tolist(), gamma.tolist(), bias.tolist())
    configs = tuple(CPLConfig(**SMALL, bc_updates=0, alpha=a, gamma=g, bias=b) for a, g, b in settings)
    learner = CPL(SPEC, Members(configs, tuple(range(len(configs))), dtype=DOUBLE))
    some = pairs(len(configs), count=label.shape[1])
    return learner.contrast(dataclasses.replace(some, label=label), log_prob)


def test_advantages_are_discounted_by_hand() -> None:
    """gamma^t appears, first step undiscounted: alpha (l_0 + gamma l_1 + gamma^2 l_2)."""
    log_prob = torch.tensor([[[[-1.0, -2.0, -3.0], [-2.0, -0.5, -1.0]]]], dtype=DOUBLE)
    loss, metrics = compare(numbers(0.2), numbers(0.5), numbers(0.75), log_prob, numbers(1.0)[None])
    first, second = 0.2 * (-1.0 - 1.0 - 0.75), 0.2 * (-2.0 - 0.25 - 0.25)
    assert float(loss) == pytest.approx(math.log1p(math.exp(-(second - 0.75 * first))), abs=1e-14)
    assert metrics["accuracy"].tolist() == [1.0]
    undiscounted, _ = compare(numbers(0.2), numbers(1.0), numbers(0.75), log_prob, numbers(1.0)[None])
    assert float(undiscounted) == pytest.approx(math.log1p(math.exp(-(0.2 * -3.5 - 0.75 * 0.2 * -6.0))), abs=1e-14)


def test_each_member_has_its_own_temperature_discount_and_bias() -> None:
    log_prob = -rng.uniform(rng.keys([1, 2, 3]), 6, 2, 4, dtype=DOUBLE)
    label = pairs(3).label
    alpha, gamma, bias = numbers(0.1, 0.2, 0.3), numbers(0.9, 1.0, 0.5), numbers(0.5, 0.7, 1.0)
    together, _ = compare(alpha, gamma, bias, log_prob, label)
    for member in range(3):
        row = slice(member, member + 1)
        alone, _ = compare(alpha[row], gamma[row], bias[row], log_prob[row], label[row])
        torch.testing.assert_close(together[row], alone, rtol=1e-13, atol=1e-13)


def test_cpls_loss_is_equation_5_of_its_policy() -> None:
    config = CPLConfig(**SMALL, bc_updates=0, alpha=0.3, gamma=0.9, bias=0.5)
    learner = CPL(SPEC, sweep(config, [0, 1], dtype=DOUBLE))
    batch = pairs(2)
    density = -(batch.act - torch.tanh(learner.policy.net(batch.obs.flatten(1, 3))).reshape_as(batch.act)).square()
    discount = numbers(0.9) ** torch.arange(4)
    advantage = (0.3 * density.sum(-1) * discount).sum(-1)
    expected = losses.contrastive(advantage[..., 0], advantage[..., 1], batch.label, 0.5).mean(1)
    found = learner.update({"pairs": batch})["loss"]
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-12)


def test_the_first_stage_clones_both_segments() -> None:
    learner = CPL(SPEC, sweep(CPLConfig(**SMALL, bc_updates=1), [0], dtype=DOUBLE))
    batch = pairs(1)
    expected = -learner.policy(batch.obs.flatten(1, 3)).log_prob(batch.act.flatten(1, 3)).mean(1)
    metrics = learner.update({"pairs": batch})
    torch.testing.assert_close(metrics["loss_bc"], expected.detach(), rtol=1e-12, atol=1e-12)
    assert set(metrics) == {"loss_bc"}
    assert "loss_bc" not in learner.update({"pairs": batch})


def test_cpl_bc_adds_the_cloning_term() -> None:
    config = CPLBCConfig(**SMALL, bc_updates=0)
    learner = CPLBC(SPEC, sweep(config, [0], {"bc_weight": [0.0, 0.5]}, dtype=DOUBLE))
    batch = pairs(2)
    log_prob = learner.log_prob(batch.obs, batch.act)
    loss, metrics = learner.contrast(batch, log_prob)
    plain, _ = compare(learner.alpha, learner.gamma, numbers(1.0, 1.0), log_prob, batch.label)
    torch.testing.assert_close(loss, plain + numbers(0.0, 0.5) * cloning(log_prob), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(metrics["loss_bc"], cloning(log_prob).detach())


# --- the switch of stages ---------------------------------------------------------------------------------------------


def step_size(learner: CPL, batch: LabelledPairs) -> Tensor:
    """[P] the largest change of any weight in one update."""
    before = [p.detach().clone() for p in learner.policy.parameters()]
    learner.update({"pairs": batch})
    changes = [(p.detach() - old).abs().flatten(1) for p, old in zip(learner.policy.parameters(), before)]
    return torch.cat(changes, dim=1).amax(1)


@pytest.mark.parametrize(
    ("warmup", "since", "scale"), [(4, 0, 0.25), (4, 1, 0.5), (4, 3, 1.0), (4, 9, 1.0), (0, 0, 1.0), (1, 0, 1.0)]
)
def test_the_learning_rate_warms_up_linearly(warmup: int, since: int, scale: float) -> None:
    learner = CPL(SPEC, sweep(CPLConfig(**SMALL, warmup=warmup), [0]))
    assert learner.scale(since) == scale
    tenth = CPLKL(SPEC, sweep(CPLKLConfig(**SMALL, warmup=warmup), [0]))
    assert tenth.scale(since) == pytest.approx(0.1 * scale, abs=1e-15)


@pytest.mark.parametrize(("kind", "config", "factor"), [(CPL, CPLConfig, 1.0), (CPLKL, CPLKLConfig, 0.1)])
def test_the_second_stage_starts_with_a_fresh_optimiser_and_the_first_step_of_the_warm_up(
    kind: type[CPL], config: type[CPLConfig], factor: float
) -> None:
    """A fresh Adam's first step is lr * sign(gradient) whatever came before; an old one's is not."""
    members = sweep(config(**SMALL, bc_updates=5, warmup=10), [0], {"lr": [0.01, 0.02]}, dtype=DOUBLE)
    learner = kind(SPEC, members)
    cloned, contrasted = pairs(2), pairs(2, label=1.0)
    for _ in range(5):
        step_size(learner, cloned)
    assert learner.adam.steps == 5
    found = step_size(learner, contrasted)
    torch.testing.assert_close(found, factor * numbers(0.001, 0.002), rtol=1e-4, atol=0.0)
    assert learner.adam.steps == 1


# --- CPL-KL -----------------------------------------------------------------------------------------------------------


def switched(label: float | None = None) -> tuple[CPLKL, LabelledPairs]:
    """CPL-KL with bias .3, .75 and 1 as it stands at the switch: the policy is its own reference."""
    config = CPLKLConfig(**SMALL, bc_updates=3, gamma=0.9)
    learner = CPLKL(SPEC, sweep(config, [0], {"bias": [0.3, 0.75, 1.0]}, dtype=DOUBLE))
    batch = pairs(3, label=label)
    for _ in range(3):
        learner.update({"pairs": batch})
    return learner, batch


@pytest.mark.parametrize("label", [None, 0.0, 0.5, 1.0])
def test_cpl_kl_begins_at_log_2_for_every_bias(label: float | None) -> None:
    """T7: at pi = pi_ref without dropout."""
    learner, batch = switched(label)
    first = learner.update({"pairs": batch})["loss"]
    torch.testing.assert_close(first, torch.full_like(first, math.log(2.0)), rtol=1e-14, atol=1e-14)
    assert (learner.update({"pairs": batch})["loss"] != math.log(2.0)).any()


def test_cpl_kls_gradient_at_the_reference_is_the_formulas() -> None:
    """T7: minus half of (grad adv(preferred) - bias grad adv(other)), by central differences in the weights."""
    learner, batch = switched(label=1.0)
    learner.begin()
    parameters = list(learner.policy.parameters())
    loss, _ = learner.contrast(batch, learner.log_prob(batch.obs, batch.act))
    grads = torch.autograd.grad(loss.sum(), parameters)
    direction = [
        rng.normal(rng.fold(rng.keys([1, 2, 3]), i), *p.shape[1:], dtype=DOUBLE) for i, p in enumerate(parameters)
    ]

    def advantages() -> Tensor:
        discounted = learner.log_prob(batch.obs, batch.act) * numbers(0.9) ** torch.arange(4)
        return learner.alpha[:, None, None] * discounted.sum(-1)  # [P, B, 2]

    def moved(by: float) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            for p, d in zip(parameters, direction):
                p.add_(by * d)
            found = advantages(), learner.contrast(batch, learner.log_prob(batch.obs, batch.act))[0]
            for p, d in zip(parameters, direction):
                p.sub_(by * d)
        return found

    (up, loss_up), (down, loss_down) = moved(1e-5), moved(-1e-5)
    slope = (up - down) / 2e-5  # [P, B, 2]
    formula = -0.5 * (slope[..., 1] - learner.bias[:, None] * slope[..., 0]).mean(1)
    ours = torch.stack([(g * d).flatten(1).sum(1) for g, d in zip(grads, direction)]).sum(0)
    torch.testing.assert_close(ours, formula, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours, (loss_up - loss_down) / 2e-5, rtol=1e-6, atol=1e-6)


def test_the_reference_is_the_cloned_policy_and_stays() -> None:
    learner, batch = switched()
    cloned = [p.detach().clone() for p in learner.policy.parameters()]
    for _ in range(3):
        learner.update({"pairs": batch})
    for now, old, moved in zip(learner.reference.parameters(), cloned, learner.policy.parameters(), strict=True):
        assert torch.equal(now, old)
        assert not torch.equal(moved, old)


def test_a_constant_in_the_reference_cancels_without_bias() -> None:
    log_prob = -rng.uniform(rng.keys([1, 2]), 6, 2, 4, dtype=DOUBLE)
    settings = numbers(0.2, 0.2), numbers(0.9, 0.9), numbers(1.0, 0.5)
    plain, _ = compare(*settings, log_prob, pairs(2).label)
    moved, _ = compare(*settings, log_prob - 3.0, pairs(2).label)
    assert abs(float(plain[0] - moved[0])) < 1e-12
    assert float(moved[1] - plain[1]) > 0.1
