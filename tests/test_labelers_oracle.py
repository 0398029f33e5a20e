"""Oracle critics: the SAC networks against torch's own, the LQR against the environment's closed form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.point_mass import PointMass, Problem, solve
from pbrl import rng
from pbrl.data import Dataset, Segments, hdf5
from pbrl.errors import InputError
from pbrl.labelers import oracle
from pbrl.labelers.oracle import LQRCritic, SACCritic, load_critic, make_critic
from pbrl.labelers.scores import Regret

from .data_cases import SHARED
from .labelers_cases import KEY, normal

BEHAVIOUR = SHARED / "behaviour" / "hopper"
ATTRS = {"kind": "sac", "gamma": 0.97}
OBS, ACT, HIDDEN, ENSEMBLE = 4, 2, 16, 3


def networks() -> dict[str, NDArray[np.float32]]:
    """Random weights in the layout of the store."""
    shapes = {"0": (HIDDEN,), "1": (HIDDEN,), "mean": (ACT,), "log_std": (ACT,)}
    arrays: dict[str, NDArray[np.float32]] = {"log_alpha": np.asarray(1.0, dtype=np.float32)}

    def layer(name: str, *weight: int) -> None:
        values = rng.normal(rng.fold(KEY, name), *weight) / math.sqrt(weight[-2])
        arrays[f"{name}/weight"] = values.numpy()
        arrays[f"{name}/bias"] = (0.1 * values[..., 0, :]).numpy()

    for name, (size,) in shapes.items():
        layer(f"actor/{name}", OBS if name == "0" else HIDDEN, size)
    for number, (inputs, outputs) in enumerate([(OBS + ACT, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 1)]):
        layer(f"critic/{number}", ENSEMBLE, inputs, outputs)
    return arrays


def torch_q(arrays: dict[str, NDArray[np.float32]], obs: Tensor, act: Tensor) -> Tensor:
    """Q by torch.nn, one network after the other."""
    answers = []
    for member in range(ENSEMBLE):
        x = torch.cat([obs, act], -1)
        for number in range(3):
            weight, bias = (torch.from_numpy(arrays[f"critic/{number}/{part}"][member]) for part in ("weight", "bias"))
            x = torch.nn.functional.linear(x, weight.T, bias)
            x = torch.relu(x) if number < 2 else x
        answers.append(x.squeeze(-1))
    return torch.stack(answers).mean(0)


def test_sac_q_equals_torchs_networks() -> None:
    arrays = networks()
    obs, act = normal(5, 7, OBS).float(), normal(5, 7, ACT).float().tanh()
    torch.testing.assert_close(make_critic(arrays, ATTRS).q(obs, act), torch_q(arrays, obs, act))


@pytest.mark.parametrize("entropy", [True, False])
def test_sac_v_is_the_policys_mean(entropy: bool) -> None:
    """Against 4000 actions of torch's own tanh-normal policy: five standard errors of 64 samples apart at most."""
    arrays, count = networks(), 4000
    states = normal(50, OBS).float()
    v = make_critic(arrays, ATTRS, entropy=entropy).v(states)
    weights = {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}
    hidden = states
    for number in range(2):
        hidden = torch.relu(hidden @ weights[f"actor/{number}/weight"] + weights[f"actor/{number}/bias"])
    mean = hidden @ weights["actor/mean/weight"] + weights["actor/mean/bias"]
    log_std = (hidden @ weights["actor/log_std/weight"] + weights["actor/log_std/bias"]).clamp(-20, 2)
    base = torch.distributions.Normal(mean, log_std.exp())
    policy = torch.distributions.TransformedDistribution(base, [torch.distributions.TanhTransform()])
    raw = mean + log_std.exp() * rng.normal(KEY, count, 1, ACT)
    acts = raw.tanh().clamp(-0.999999, 0.999999)
    value = torch_q(arrays, states.expand(len(acts), *states.shape), acts)
    if entropy:
        value = value - math.exp(1.0) * policy.log_prob(acts).sum(-1)
    error = v - value.mean(0)
    assert (error.abs() < 5 * value.std(0) / 8).all()
    assert error.std() > 0, "64 samples cannot be exact"


def test_sac_values_are_functions_of_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    critic, states = make_critic(networks(), ATTRS), normal(40, 3, OBS).float()
    v = critic.v(states)
    assert v.shape == (40, 3)
    assert torch.equal(v, critic.v(states))
    torch.testing.assert_close(critic.v(states[7, 1]), v[7, 1])
    monkeypatch.setattr(oracle, "_ROWS_AT_ONCE", 640)  # ten states at once instead of all
    torch.testing.assert_close(critic.v(states), v)


def test_sac_values_are_computed_once_per_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Overlapping segments ask for the same states again; equal states get equal values, whatever their place."""
    critic, states = make_critic(networks(), ATTRS), normal(30, OBS).float()
    overlapping = states.unfold(0, 10, 1).transpose(1, 2)  # [21, 10, O]
    expected = torch.stack([critic.v(state) for state in states]).unfold(0, 10, 1)
    computed, plain = [], SACCritic._v

    def counted(self: SACCritic, obs: Tensor) -> Tensor:
        computed.append(len(obs))
        return plain(self, obs)

    monkeypatch.setattr(SACCritic, "_v", counted)
    torch.testing.assert_close(critic.v(overlapping), expected)
    assert sum(computed) == 30
    values = critic.v(states[:4].repeat(500, 1)).reshape(500, 4)
    assert torch.equal(values, values[:1].expand(500, 4))


def test_sac_entropy_and_ensemble_matter() -> None:
    arrays, states = networks(), normal(9, OBS).float()
    soft, plain = (make_critic(arrays, ATTRS, entropy=entropy).v(states) for entropy in (True, False))
    assert (soft - plain).abs().min() > 1e-3
    other = dict(arrays)
    other["critic/2/bias"] = arrays["critic/2/bias"] + np.asarray([[3.0], [0.0], [0.0]], dtype=np.float32)
    torch.testing.assert_close(make_critic(other, ATTRS).v(states), soft + 1.0)


@pytest.mark.parametrize(("beyond", "bound"), [(50.0, 2.0), (-50.0, -20.0)])
def test_sac_log_std_is_clipped_as_in_training(beyond: float, bound: float) -> None:
    states, values = normal(9, OBS).float(), []
    for level in (beyond, bound, 0.95 * bound):
        arrays = networks()
        arrays["actor/log_std/weight"] = np.zeros((HIDDEN, ACT), dtype=np.float32)
        arrays["actor/log_std/bias"] = np.full(ACT, level, dtype=np.float32)
        values.append(make_critic(arrays, ATTRS).v(states))
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[1], values[2])


def test_stored_beside_a_data_set(tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    count = 20
    data = Dataset.from_arrays(
        obs=normal(count, OBS),
        act=normal(count, ACT).tanh(),
        rew=normal(count),
        term=[False] * count,
        trunc=[False] * (count - 1) + [True],
        next_obs=normal(count, OBS),
    )
    hdf5.save(data, path, networks(), ATTRS)
    critic = load_critic(path)
    assert isinstance(critic, SACCritic)
    assert critic.gamma == 0.97
    assert torch.equal(critic.v(data.obs), make_critic(networks(), ATTRS).v(data.obs))
    hdf5.save(data, path)
    with pytest.raises(InputError, match="no oracle"):
        load_critic(path)


@pytest.mark.parametrize(
    ("change", "attrs", "message"),
    [
        ({}, {"kind": "td3", "gamma": 0.9}, "kind 'td3'"),
        ({}, {"kind": "sac"}, "gamma None"),
        ({}, {"kind": "sac", "gamma": 1.5}, "gamma 1.5"),
        ({"critic/1/weight": None}, ATTRS, "lacks the array 'critic/1/weight'"),
        ({"log_alpha": None}, ATTRS, "lacks the array 'log_alpha'"),
        ({"actor/mean/bias": np.zeros(5)}, ATTRS, "oracle layer 'actor/mean'"),
        ({"actor/0/bias": np.full(HIDDEN, np.nan)}, ATTRS, "'actor/0/bias' holds NaN"),
        ({}, {"kind": "lqr", "gamma": 0.9}, "lacks the array 'q_matrix'"),
    ],
)
def test_bad_oracles(change: dict[str, Any], attrs: dict[str, Any], message: str) -> None:
    arrays: dict[str, Any] = {name: array for name, array in (networks() | change).items() if array is not None}
    with pytest.raises(InputError, match=message):
        make_critic(arrays, attrs)


def test_lqr_equals_the_point_masss_solution_and_its_regrets_agree() -> None:
    problem = Problem(dimension=2, noise=0.0)
    exact = solve(problem).critic
    names = ("q_matrix", "v_matrix", "q_constant", "v_constant")
    arrays = {name: np.asarray(getattr(exact, name)) for name in names}
    critic = make_critic(arrays, {"kind": "lqr", "gamma": exact.gamma})
    assert isinstance(critic, LQRCritic)
    obs, act = normal(6, 5, 4), normal(6, 5, 2)
    torch.testing.assert_close(critic.q(obs, act), exact.q(obs, act))
    torch.testing.assert_close(critic.v(obs), exact.v(obs))

    copies, length = 50, 20
    env = PointMass(copies, problem)
    seen = [env.reset(range(copies))]
    acts = normal(length, copies, 2).tanh()
    rew = []
    for t in range(length):
        obs_next, reward, _, _ = env.step(acts[t].numpy())
        seen.append(obs_next)
        rew.append(reward)
    path = torch.from_numpy(np.stack(seen, 1))
    segments = Segments(
        obs=path[:, :-1],
        act=acts.transpose(0, 1),
        rew=torch.from_numpy(np.stack(rew, 1)),
        last_obs=path[:, -1],
        term=torch.zeros(copies, dtype=torch.bool),
        row=torch.full((copies,), -1),
        source="point mass",
        fingerprint="",
    )
    by_advantage, by_return = Regret(critic, "dis_dir")(segments), Regret(critic, "dis_sum")(segments)
    assert by_advantage.max() < 0
    assert (by_advantage - by_return).abs().max() < 1e-9


@pytest.mark.skipif(not BEHAVIOUR.exists(), reason="needs a real SAC run")
def test_a_real_runs_critic_is_consistent_with_its_data() -> None:
    with np.load(BEHAVIOUR / "policy_best.npz") as file:
        names = {"actor/Dense_2": "actor/mean", "actor/Dense_3": "actor/log_std"}
        names |= {f"{net}/Dense_{n}": f"{net}/{n}" for net, n in [("actor", 0), ("actor", 1)]}
        names |= {f"critic/Dense_{n}": f"critic/{n}" for n in range(3)}
        arrays = {"log_alpha": file["log_alpha"]}
        for theirs, ours in names.items():
            arrays |= {f"{ours}/weight": file[f"{theirs}/kernel"], f"{ours}/bias": file[f"{theirs}/bias"]}
    critic = make_critic(arrays, {"kind": "sac", "gamma": 0.99})
    with np.load(BEHAVIOUR / "replay.npz") as file:
        rows = slice(60_000, 61_000)
        obs, act, rew, next_obs = (torch.from_numpy(file[name][rows]) for name in ("obs", "act", "rew", "next_obs"))
        term = torch.from_numpy(file["term"][rows]).bool()
    q = critic.q(obs, act)
    target = rew + 0.99 * critic.v(next_obs) * ~term
    assert np.corrcoef(q, target)[0, 1] > 0.9
    random = critic.q(obs, rng.uniform(KEY, *act.shape) * 2 - 1)
    plain = make_critic(arrays, {"kind": "sac", "gamma": 0.99}, entropy=False)
    assert (plain.v(obs) > random).double().mean() > 0.7, "the policy's own actions must be worth more than random ones"
