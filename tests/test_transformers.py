"""Stacked transformers equal loops of torch's own, see nothing they must not see, and do not mix members."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pbrl import rng
from pbrl.errors import InputError
from pbrl.nets.transformers import (
    Activation,
    StackedAttention,
    StackedEmbedding,
    StackedTransformer,
    attention_mask,
    interleave,
)

P, B, T, D, HEADS, LAYERS = 3, 4, 6, 8, 2, 2
KEYS = rng.keys([3, 4, 5])
DOUBLE = torch.float64


def stack(
    keys: Tensor = KEYS, *, causal: bool, dropout: Tensor | None = None, activation: Activation = "gelu"
) -> StackedTransformer:
    made = StackedTransformer(
        keys, D, layers=LAYERS, heads=HEADS, causal=causal, activation=activation, dropout=dropout, dtype=DOUBLE
    )
    with torch.no_grad():  # norms and biases that are not ones and zeros
        for name, parameter in made.named_parameters():
            # Larger weights, so that attention is far from uniform.
            noise = rng.normal(rng.fold(keys, name), *parameter.shape[1:], dtype=DOUBLE)
            parameter.add_(0.3 * noise)
    return made


def positions(keys: Tensor = KEYS, length: int = T) -> Tensor:
    return rng.normal(rng.fold(keys, "positions"), B, length, D, dtype=DOUBLE)


def lone(of: StackedTransformer, member: int, activation: Activation) -> tuple[nn.ModuleList, nn.LayerNorm]:
    """One member as torch's own modules: blocks and last norm."""
    blocks = nn.ModuleList(
        nn.TransformerEncoderLayer(
            D,
            HEADS,
            4 * D,
            dropout=0.0,
            activation=partial(F.gelu, approximate="tanh") if activation == "gelu" else F.relu,
            batch_first=True,
            norm_first=True,
            dtype=DOUBLE,
        )
        for _ in range(LAYERS)
    )
    norm = nn.LayerNorm(D, dtype=DOUBLE)
    with torch.no_grad():
        for theirs, ours in zip(named(blocks, norm), ordered(of)):
            value = ours[member]
            theirs.copy_(value.mT.reshape(theirs.shape) if theirs.dim() == 2 else value.reshape(theirs.shape))
    return blocks, norm


THEIRS = {
    "norm1": "before_attention",
    "self_attn.in_proj_": "attention.projection.",
    "self_attn.out_proj": "attention.out",
    "norm2": "before_mlp",
    "linear1": "wide",
    "linear2": "narrow",
}
"""Names of torch's parts of a block to ours."""


def named(blocks: nn.ModuleList, norm: nn.LayerNorm) -> list[Tensor]:
    """Torch's parameters in a fixed order."""
    places = [f"{i}.{part}" for i in range(LAYERS) for part in THEIRS]
    found = [blocks.get_parameter(joined(place, kind)) for place in places for kind in ("weight", "bias")]
    return [*found, norm.weight, norm.bias]


def ordered(of: StackedTransformer) -> list[Tensor]:
    """Our parameters in the same order."""
    places = [f"blocks.{i}.{part}" for i in range(LAYERS) for part in THEIRS.values()]
    return [of.get_parameter(joined(place, kind)) for place in (*places, "norm") for kind in ("weight", "bias")]


def joined(place: str, kind: str) -> str:
    return place + kind if place[-1] in "._" else f"{place}.{kind}"


@pytest.mark.parametrize(
    ("causal", "padded", "activation"),
    [(False, False, "gelu"), (True, False, "gelu"), (False, True, "gelu"), (True, True, "gelu"), (True, True, "relu")],
)
def test_equals_a_loop_of_torchs_modules(causal: bool, padded: bool, activation: Activation) -> None:
    ours, x = stack(causal=causal, activation=activation), positions().requires_grad_()
    present = torch.ones(P, B, T)
    if padded:
        present[:, 1, :2] = 0.0
        present[:, 2, 4:] = 0.0
        present[1, 3, :5] = 0.0
    weight = rng.normal(rng.fold(KEYS, "weight"), B, T, D, dtype=DOUBLE) * present.unsqueeze(-1)
    out = ours(x, present if padded else None)
    parameters = ordered(ours)
    grads = torch.autograd.grad((out * weight).sum(), [x, *parameters])
    for member in range(P):
        blocks, norm = lone(ours, member, activation)
        y = x[member].detach().requires_grad_()
        hidden: Tensor = y
        allowed = torch.ones(T, T, dtype=torch.bool).tril() if causal else torch.ones(T, T, dtype=torch.bool)
        seen = allowed & (present[member].bool()[:, None, :] | torch.eye(T, dtype=torch.bool))
        for block in blocks:
            hidden = block(hidden, src_mask=~seen.repeat_interleave(HEADS, 0))
        theirs = norm(hidden)
        torch.testing.assert_close(out[member], theirs, rtol=1e-9, atol=1e-9)
        wanted = torch.autograd.grad((theirs * weight[member]).sum(), [y, *named(blocks, norm)])
        torch.testing.assert_close(grads[0][member], wanted[0], rtol=1e-9, atol=1e-9)
        bias = torch.autograd.grad((ours(x) ** 2).sum(), [ours.get_parameter("blocks.0.attention.projection.bias")])[0]
        assert not bias[member, 0, D : 2 * D].any(), "keys have no bias, whose gradient would be rounding noise"
        assert bias[member, 0, :D].all()
        for found, expected in zip(grads[1:], wanted[1:]):
            value = found[member].mT if expected.dim() == 2 else found[member]
            torch.testing.assert_close(value.reshape(expected.shape), expected, rtol=1e-9, atol=1e-9)


def test_the_future_changes_nothing() -> None:
    net, x = stack(causal=True), positions()
    for t in range(T - 1):
        other = x.clone()
        other[:, :, t + 1 :] = 7.0 - 3.0 * x[:, :, t + 1 :]
        assert torch.equal(net(x)[:, :, : t + 1], net(other)[:, :, : t + 1])
        assert not torch.allclose(net(x)[:, :, t + 1], net(other)[:, :, t + 1])
    free = stack(causal=False)
    other = x.clone()
    other[:, :, -1] *= -1.0  # a mere shift would be lost in the norms
    assert not torch.allclose(free(x)[:, :, 0], free(other)[:, :, 0])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_padding_changes_nothing(causal: bool, left: bool) -> None:
    net, x = stack(causal=causal), positions()
    alone = net(x)
    for extra in (1, 5):
        padding, absent = 50.0 * positions(rng.fold(KEYS, 1), extra), torch.zeros(P, B, extra)
        parts = (padding, x) if left else (x, padding)
        masks = (absent, torch.ones(P, B, T)) if left else (torch.ones(P, B, T), absent)
        real = slice(extra, None) if left else slice(None, T)
        out = net(torch.cat(parts, 2), torch.cat(masks, 2))
        torch.testing.assert_close(out[:, :, real], alone, rtol=1e-9, atol=1e-9)
        assert out.isfinite().all(), "padded positions are finite too, or their gradients would not be"
        if not (causal and not left):
            assert not torch.allclose(net(torch.cat(parts, 2))[:, :, real], alone, atol=1e-3), "the mask is needed"


def test_what_lies_in_padding_gets_no_gradient() -> None:
    net = stack(causal=False)
    x = positions().requires_grad_()
    present = torch.ones(P, B, T)
    present[:, :, 4:] = 0.0
    (grad,) = torch.autograd.grad(net(x, present)[:, :, :4].square().sum(), [x])
    assert torch.equal(grad[:, :, 4:], torch.zeros_like(grad[:, :, 4:]))
    assert (grad[:, :, :4] != 0).any()


@pytest.mark.parametrize("rates", [None, [0.5, 0.25, 0.0]])
def test_a_member_of_a_stack_is_the_same_alone(rates: list[float] | None) -> None:
    rate = None if rates is None else torch.tensor(rates, dtype=DOUBLE)
    key = rng.fold(KEYS, "dropout")
    together = stack(causal=True, dropout=rate)(positions(), key=key)
    for i in range(P):
        one = stack(KEYS[i : i + 1], causal=True, dropout=None if rate is None else rate[i : i + 1])
        torch.testing.assert_close(
            one(positions(KEYS[i : i + 1]), key=key[i : i + 1])[0], together[i], rtol=1e-12, atol=1e-12
        )


def test_dropout_needs_a_key_and_is_on_average_neutral() -> None:
    keys = rng.keys(range(2000))
    rate = torch.full((len(keys),), 0.25, dtype=DOUBLE)
    net = StackedAttention(rng.keys([1]).expand(len(keys)), D, HEADS, rate=rate, dtype=DOUBLE)
    x = positions(rng.keys([2])).expand(len(keys), -1, -1, -1)
    calm, noisy = net(x), net(x, key=keys)
    assert torch.equal(calm[0], calm[1])
    assert not torch.allclose(noisy[0], noisy[1])
    spread = noisy.std(0) / len(keys) ** 0.5
    assert ((noisy.mean(0) - calm[0]).abs() < 5 * spread).all()


def test_initial_weights_are_gpt2s() -> None:
    made = StackedTransformer(rng.keys([0, 1]), 64, layers=1, heads=4, causal=True)
    wide, out = (made.get_parameter(f"blocks.0.{name}.weight") for name in ("wide", "attention.out"))
    assert wide.std().item() == pytest.approx(0.02, rel=0.02)
    assert not torch.equal(wide[0], wide[1])
    assert not torch.equal(out, wide[:, :, :64])
    assert not made.get_parameter("blocks.0.wide.bias").any()


def test_embeddings_are_read_from_each_members_own_table() -> None:
    table = StackedEmbedding(KEYS, 5, D, dtype=DOUBLE)
    index = rng.indices(KEYS, 7, 5)
    out = table(index)
    for i in range(P):
        torch.testing.assert_close(out[i], table.weight[i][index[i]], rtol=0, atol=0)
    grad = torch.autograd.grad(out.sum(), [table.weight])[0]
    counts = torch.stack([torch.bincount(row, minlength=5) for row in index]).double()
    torch.testing.assert_close(grad, counts.unsqueeze(-1).expand(-1, -1, D))


def test_masks_by_hand() -> None:
    present = torch.tensor([[[0.0, 1.0, 1.0]]])
    free = attention_mask(3, causal=False, present=present, device="cpu")
    causal = attention_mask(3, causal=True, present=present, device="cpu")
    assert free is not None
    assert causal is not None
    assert free[0, 0].int().tolist() == [[1, 1, 1], [0, 1, 1], [0, 1, 1]]
    assert causal[0, 0].int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert attention_mask(3, causal=False, present=None, device="cpu") is None


def test_tokens_alternate() -> None:
    first, second = torch.zeros(1, 1, 2, 1), torch.ones(1, 1, 2, 1)
    assert interleave(first, second).flatten().tolist() == [0.0, 1.0, 0.0, 1.0]


def test_a_width_that_the_heads_cannot_share() -> None:
    with pytest.raises(InputError, match="width is 8, expected a multiple of its 3 heads"):
        StackedTransformer(KEYS, 8, layers=1, heads=3, causal=True)
