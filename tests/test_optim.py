"""The stacked optimiser against torch.optim.Adam and clip_grad_norm_, member by member; and members apart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pbrl import rng
from pbrl.descent import descent
from pbrl.nets.mlp import StackedMLP
from pbrl.optim import Adam, track

DOUBLE = torch.float64
KEYS = rng.keys([0, 1, 2])
SHAPES = ((3, 4, 5), (3, 1, 5), (3, 2, 5, 1))
RATES = {"equal": [0.01, 0.01, 0.01], "different": [0.1, 0.01, 0.001]}
CLIPS = {"none": None, "each member's own": [0.5, math.inf, 5.0]}


def draw(word: str, step: int) -> list[Tensor]:
    """One tensor per shape, different for each word and step."""
    key = rng.fold(KEYS, word, step)
    return [rng.normal(rng.fold(key, i), *shape[1:], dtype=DOUBLE) for i, shape in enumerate(SHAPES)]


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(value) for value in draw("start", 0)]


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("rates", RATES)
def test_fifty_steps_are_those_of_torchs_adam(rates: str, clip: str) -> None:
    bounds = CLIPS[clip]
    ours = parameters()
    adam = Adam(ours, torch.tensor(RATES[rates], dtype=DOUBLE), clip=None if bounds is None else torch.tensor(bounds))
    theirs = [[nn.Parameter(value[member].clone()) for value in draw("start", 0)] for member in range(3)]
    singles = [torch.optim.Adam(mine, lr=rate) for mine, rate in zip(theirs, RATES[rates])]
    for step in range(50):
        grads = draw("grad", step)
        adam.step(grads)
        for member, single in enumerate(singles):
            for parameter, grad in zip(theirs[member], grads):
                parameter.grad = grad[member].clone()
            if bounds is not None:
                nn.utils.clip_grad_norm_(theirs[member], bounds[member])
            single.step()
    for member in range(3):
        for mine, single_parameter in zip(ours, theirs[member]):
            torch.testing.assert_close(mine[member], single_parameter, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("decays", [[0.1, 0.1, 0.1], [0.0, 1e-2, 0.5]])
@pytest.mark.parametrize("rates", RATES)
def test_with_weight_decay_twenty_steps_are_those_of_torchs_adamw(rates: str, decays: list[float]) -> None:
    ours = parameters()
    lr = torch.tensor(RATES[rates], dtype=DOUBLE)
    adam = Adam(ours, lr, weight_decay=torch.tensor(decays, dtype=DOUBLE))
    theirs = [[nn.Parameter(value[member].clone()) for value in draw("start", 0)] for member in range(3)]
    singles = [torch.optim.AdamW(m, lr=r, weight_decay=d) for m, r, d in zip(theirs, RATES[rates], decays)]
    for step in range(20):
        grads, scale = draw("grad", step), (step + 1) / 20  # a schedule scales the decay with the learning rate
        adam.step(grads, scale)
        for member, single in enumerate(singles):
            for parameter, grad in zip(theirs[member], grads):
                parameter.grad = grad[member].clone()
            single.param_groups[0]["lr"] = RATES[rates][member] * scale
            single.step()
    for member in range(3):
        for mine, single_parameter in zip(ours, theirs[member]):
            torch.testing.assert_close(mine[member], single_parameter, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rates", RATES)
def test_scale_multiplies_the_learning_rates_of_one_step(rates: str) -> None:
    lr = torch.tensor(RATES[rates], dtype=DOUBLE)
    one, other = parameters(), parameters()
    Adam(one, lr).step(draw("grad", 0), 0.3)
    Adam(other, 0.3 * lr).step(draw("grad", 0))
    for a, b in zip(one, other):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("rates", RATES)
def test_gradients_may_lie_in_memory_in_any_order(rates: str) -> None:
    one, other = parameters(), parameters()
    grads = draw("grad", 0)
    Adam(one, torch.tensor(RATES[rates], dtype=DOUBLE)).step(grads)
    Adam(other, torch.tensor(RATES[rates], dtype=DOUBLE)).step([g.mT.contiguous().mT for g in grads])
    for a, b in zip(one, other):
        assert torch.equal(a, b)


def test_reset_is_a_fresh_optimiser() -> None:
    one, other = parameters(), parameters()
    used, fresh = (Adam(p, torch.tensor(RATES["different"], dtype=DOUBLE)) for p in (one, other))
    used.step(draw("grad", 0))
    used.reset()
    with torch.no_grad():
        for a, b in zip(one, other):
            a.copy_(b)
    for step in range(1, 4):
        used.step(draw("grad", step))
        fresh.step(draw("grad", step))
    assert all(torch.equal(a, b) for a, b in zip(one, other))


def test_a_saved_optimiser_goes_on_with_the_same_bits() -> None:
    one, other = parameters(), parameters()
    first, second = (Adam(p, torch.tensor(RATES["different"], dtype=DOUBLE)) for p in (one, other))
    for step in range(3):
        first.step(draw("grad", step))
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    with torch.no_grad():
        for a, b in zip(one, other):
            b.copy_(a)
    for step in range(3, 6):
        first.step(draw("grad", step))
        second.step(draw("grad", step))
    assert all(torch.equal(a, b) for a, b in zip(one, other))


def test_the_parameters_are_not_saved_twice() -> None:
    """They belong to the network; the optimiser saves moments and settings."""
    names = set(Adam(parameters(), torch.ones(3)).state_dict())
    assert names == {"lr", "_extra_state", *(f"{m}.{i}" for m in ("first", "second") for i in range(3))}


# --- members apart ----------------------------------------------------------------------------------------------------


def train(members: list[int], rates: list[float], poison: int | None = None) -> list[Tensor]:
    """Three steps on a regression; the loss of member ``poison`` is NaN at the second."""
    keys = KEYS[members]
    net = StackedMLP(keys, (4, 8, 1), dtype=DOUBLE)
    adam = Adam(net.parameters(), torch.tensor(rates, dtype=DOUBLE), clip=torch.full((len(rates),), 1.0))
    descend = descent(lambda x, factor: (factor * (net(x).squeeze(-1) - x.sum(-1)).square().mean(-1), {}), False)
    for step in range(3):
        x = rng.normal(rng.fold(keys, "x", step), 16, 4, dtype=DOUBLE)
        poisoned = [math.nan if step == 1 and place == poison else 1.0 for place in range(len(members))]
        descend({adam: 1.0}, x, torch.tensor(poisoned, dtype=DOUBLE))
    return [p.detach() for p in net.parameters()]


@pytest.mark.parametrize("rates", RATES)
def test_each_member_is_trained_on_its_own_loss(rates: str) -> None:
    together = train([0, 1, 2], RATES[rates])
    for member in range(3):
        alone = train([member], [RATES[rates][member]])
        for a, b in zip(together, alone):
            torch.testing.assert_close(a[member], b[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rates", RATES)
def test_a_members_nan_leaves_the_others_bits(rates: str) -> None:
    healthy, poisoned = train([0, 1, 2], RATES[rates]), train([0, 1, 2], RATES[rates], poison=1)
    for good, bad in zip(healthy, poisoned):
        assert torch.equal(good[0], bad[0])
        assert torch.equal(good[2], bad[2])
        assert bad[1].isnan().all()


def test_the_gradient_of_one_members_loss_is_zero_elsewhere() -> None:
    net = StackedMLP(KEYS, (4, 8, 1), ensemble=2, dtype=DOUBLE)
    loss = net(rng.normal(KEYS, 16, 4, dtype=DOUBLE)).square().mean((1, 2, 3))
    for grad in torch.autograd.grad(loss[1], list(net.parameters())):
        assert grad[1].abs().max() > 0
        assert not grad[[0, 2]].any()


@pytest.mark.parametrize(
    "compile", [False, pytest.param(True, marks=pytest.mark.filterwarnings("ignore::DeprecationWarning"))]
)
def test_several_optimisers_each_with_its_scale(compile: bool) -> None:
    nets = [StackedMLP(KEYS, (2, 1), dtype=DOUBLE) for _ in range(2)]
    adams = [Adam(net.parameters(), torch.full((3,), 0.1, dtype=DOUBLE)) for net in nets]
    before = [p.detach().clone() for net in nets for p in net.parameters()]
    x = torch.ones(3, 1, 2, dtype=DOUBLE)

    def objective(x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        one, other = (net(x).sum((1, 2)) for net in nets)
        return one, other, {"one": one}

    at_first = objective(x)[0].detach()
    metrics = descent(objective, compile)({adams[0]: 1.0, adams[1]: 0.5}, x)
    torch.testing.assert_close(metrics["one"], at_first)
    assert not metrics["one"].requires_grad
    after = [p.detach() for net in nets for p in net.parameters()]
    # Adam's first step is lr * sign(gradient), and every gradient here is 1.
    for old, new, step in zip(before, after, (0.1, 0.1, 0.05, 0.05), strict=True):
        torch.testing.assert_close(old - new, torch.full_like(old, step), rtol=1e-6, atol=0.0)


def test_track_is_a_step_of_each_members_rate() -> None:
    target, source = StackedMLP(KEYS, (2, 3, 1), dtype=DOUBLE), StackedMLP(KEYS + 1, (2, 3, 1), dtype=DOUBLE)
    before = [p.detach().clone() for p in target.parameters()]
    track(target, source, torch.tensor([0.0, 0.005, 1.0], dtype=DOUBLE))
    for old, now, new in zip(before, target.parameters(), source.parameters()):
        assert torch.equal(now[0], old[0])
        torch.testing.assert_close(now[1], 0.995 * old[1] + 0.005 * new[1], rtol=1e-13, atol=1e-13)
        assert torch.equal(now[2], new[2])
