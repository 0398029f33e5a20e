"""Counter-based random numbers: a pure function of (member key, purpose, step, position).

A key is one int64 per member. ``fold`` derives a new key from a key and a purpose (a word) or a step (a number);
``uniform``, ``normal`` and ``indices`` read a key's stream. Nothing has state, so a member draws the same numbers
whatever the population around it and whichever device it is on, and a resumed run needs no generator state.

The stream of key k is SplitMix64 (Steele, Lea & Flood 2014): output i is ``mix(k + (i + 1) * G)``, with David
Stafford's variant 13 of the 64-bit finaliser as ``mix``. ``fold`` is two rounds of the same mix. int64 arithmetic wraps
in torch as uint64 does in C; only the right shift has to be made logical by a mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b

import torch
from torch import Tensor

from .errors import InputError


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_M1 = _signed(0xBF58476D1CE4E5B9)
_M2 = _signed(0x94D049BB133111EB)
_FOLD = _signed(0xD1B54A32D192ED03)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of an int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _M1
    x = (x ^ _shift(x, 27)) * _M2
    return x ^ _shift(x, 31)


def keys(seeds: Sequence[int] | Tensor, device: torch.device | str | None = None) -> Tensor:
    """One key per seed: [P] int64.

    Raises:
        InputError: a seed that does not fit into 64 bits.
    """
    for number in () if isinstance(seeds, Tensor) else seeds:
        if not -(1 << 63) <= number < 1 << 63:
            raise InputError(f"seed is {number}, expected a number that fits into 64 bits")
    seed = torch.as_tensor(seeds, dtype=torch.int64, device=device)
    return _mix(_mix(seed + _GOLDEN) ^ _FOLD)


# torch.compile cannot look into hashes.
_constant: Callable[[Callable[[str], int]], Callable[[str], int]] = torch.compiler.assume_constant_result


@_constant
def purpose(word: str) -> int:
    """The number of a purpose: 63 bits of its blake2b hash, the same in every process and version."""
    return int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little") >> 1


def fold(key: Tensor, *data: str | int | Tensor) -> Tensor:
    """A new key from a key and purposes, steps or [P] tensors of either, in order; the shape of ``key``."""
    mixed = _mixed if torch.compiler.is_compiling() else _mixed_cached  # torch's compiler warns of caches
    for item in data:
        if isinstance(item, Tensor):
            key = _mix((key ^ _FOLD) + _mix((item + 1) * _GOLDEN))
        else:
            key = _mix((key ^ _FOLD) + mixed(purpose(item) if isinstance(item, str) else item))
    return key


def _mixed(number: int) -> int:
    """``_mix((number + 1) * G)`` of a Python integer."""
    x = ((number + 1) * _GOLDEN) % (1 << 64)
    x = ((x ^ (x >> 30)) * _M1) % (1 << 64)
    x = ((x ^ (x >> 27)) * _M2) % (1 << 64)
    return _signed(x ^ (x >> 31))


_mixed_cached = lru_cache(maxsize=4096)(_mixed)


def bits(key: Tensor, *shape: int) -> Tensor:
    """[P, *shape] int64, all 64 bits uniform, for keys [P] (a scalar key gives [*shape])."""
    draw = _words_opaque if torch.compiler.is_compiling() else _words
    return draw(key, math.prod(shape)).reshape(*key.shape, *shape)


def _words(key: Tensor, count: int) -> Tensor:
    """[P, count] int64, the first ``count`` outputs of each stream."""
    position = torch.arange(1, count + 1, dtype=torch.int64, device=key.device)
    return _mix(key.unsqueeze(-1) + position * _GOLDEN)


def _bytes(key: Tensor, count: int) -> Tensor:
    """[P, count] uint8, the bytes of the same outputs, the lowest of each first."""
    return _words(key, -(-count // 8)).view(torch.uint8)[..., :count].contiguous()


# torch.compile must not look into these: it computes with positions as if integers never wrapped (and fails or crashes
# on such large factors), and views of another element size come out wrong on a CPU.
_SCHEMA = "(Tensor key, int count) -> Tensor"
_words_opaque = torch.library.custom_op("pbrl::words", _words, mutates_args=(), schema=_SCHEMA)
_words_opaque.register_fake(lambda key, count: key.new_empty(*key.shape, count))
_bytes_opaque = torch.library.custom_op("pbrl::bytes", _bytes, mutates_args=(), schema=_SCHEMA)
_bytes_opaque.register_fake(lambda key, count: key.new_empty(*key.shape, count, dtype=torch.uint8))


def uniform(key: Tensor, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """[P, *shape] uniform in [0, 1): 24 bits of the stream as float32, 53 as float64."""
    digits = 53 if dtype == torch.float64 else 24
    return _shift(bits(key, *shape), 64 - digits).to(dtype) * 2.0**-digits


def normal(key: Tensor, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """[P, *shape] standard normal by Box-Muller, both uniforms (32 bits each) from one 64-bit draw."""
    word = bits(key, *shape)
    radius = ((_shift(word, 32).to(torch.float64) + 0.5) * 2.0**-32).log_().mul_(-2.0).sqrt_()
    angle = ((word & 0xFFFFFFFF).to(torch.float64) * (2.0 * math.pi * 2.0**-32)).cos_()
    return (radius * angle).to(dtype)


def indices(key: Tensor, count: int, high: int | Tensor) -> Tensor:
    """[P, count] int64 uniform in [0, high); ``high`` is a number or one per member [P]."""
    limit = torch.as_tensor(high, dtype=torch.float64, device=key.device).unsqueeze(-1)
    return (uniform(key, count, dtype=torch.float64) * limit).to(torch.int64)


def keep(key: Tensor, rate: float | Tensor, *shape: int) -> Tensor:
    """[P, *shape] bool, True with probability 1 - rate: a dropout mask, at an eighth of the cost of ``uniform``.

    Each 64-bit draw gives eight bytes, so the probability is ``rate`` rounded to 1/256; ``rate`` is a number or [P].
    """
    draw = _bytes_opaque if torch.compiler.is_compiling() else _bytes
    byte = draw(key, math.prod(shape)).reshape(*key.shape, *shape)
    level = torch.as_tensor(rate, device=key.device).mul(256).round().to(torch.int16)
    return byte >= level.reshape(level.shape + (1,) * (byte.dim() - level.dim()))


def permutation(key: Tensor, count: int) -> Tensor:
    """[P, count] int64: a random order of 0 .. count - 1 per key."""
    return bits(key, count).argsort(dim=-1, stable=True)
