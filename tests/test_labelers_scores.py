"""Partial return and the four regrets: hand-computed values, and the identities that tell the regrets apart."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import get_args

import pytest
import torch
from torch import Tensor

from pbrl.data import Segments
from pbrl.errors import InputError
from pbrl.labelers.protocols import StepScore
from pbrl.labelers.scores import PartialReturn, Regret, RegretForm

from .labelers_cases import normal, segments_of

FORMS = get_args(RegretForm)


@dataclass(frozen=True)
class Table:
    """A critic that looks its values up; observations and actions are state and action numbers."""

    gamma: float
    q_table: Tensor  # [S, A]
    v_table: Tensor  # [S]

    def q(self, obs: Tensor, act: Tensor) -> Tensor:
        return self.q_table[obs[..., 0].long(), act[..., 0].long()]

    def v(self, obs: Tensor) -> Tensor:
        return self.v_table[obs[..., 0].long()]


@dataclass(frozen=True)
class World:
    """A deterministic tabular world, in which some actions in some states end the episode."""

    rew: Tensor  # [S, A]
    following: Tensor  # [S, A]
    ends: Tensor  # [S, A] bool

    def critic(self, gamma: float, v: Tensor | None = None) -> Table:
        """Optimal values by value iteration, or those whose Q is consistent with a given V."""
        steps, v = (600, torch.zeros(len(self.rew), dtype=torch.float64)) if v is None else (0, v)
        for _ in range(steps):
            v = self.backup(v, gamma).amax(1)
        return Table(gamma, self.backup(v, gamma), v)

    def backup(self, v: Tensor, gamma: float) -> Tensor:
        """[S, A] Q = r + gamma V(s'), where the episode goes on."""
        return self.rew + gamma * v[self.following].masked_fill(self.ends, 0.0)

    def segments(self, count: int = 3000, length: int = 8) -> Segments:
        """Random walks, less those that would end before their last step."""
        state = random_integers(len(self.rew), count)
        act = random_integers(self.rew.shape[1], count, length)
        path = [state]
        for t in range(length):
            path.append(self.following[path[-1], act[:, t]])
        obs = torch.stack(path, 1)  # [count, length + 1]
        ends = self.ends[obs[:, :-1], act]
        walks = segments_of(
            self.rew[obs[:, :-1], act],
            obs=obs[:, :-1].unsqueeze(-1),
            act=act.unsqueeze(-1),
            last_obs=obs[:, -1:],
            term=ends[:, -1],
        )
        return walks.take(~ends[:, :-1].any(1))


def random_integers(high: int, *shape: int) -> Tensor:
    return (normal(*shape) * 1e6).long() % high


def random_world(states: int = 12, acts: int = 3) -> World:
    ends = random_integers(7, states, acts) == 0
    return World(normal(states, acts), random_integers(states, states, acts), ends)


def test_partial_return_by_hand() -> None:
    segments = segments_of([[1.0, 2.0, 3.0], [0.0, 0.0, 4.0]])
    assert PartialReturn()(segments).tolist() == [6.0, 4.0]
    assert PartialReturn("mean")(segments).tolist() == pytest.approx([2.0, 4.0 / 3.0])
    assert PartialReturn("discounted", 0.5)(segments).tolist() == [2.75, 1.0]


def test_the_mean_is_the_sum_at_temperature_t() -> None:
    segments = segments_of(normal(20, 7))
    torch.testing.assert_close(PartialReturn()(segments), 7 * PartialReturn("mean")(segments))


def test_regret_by_hand() -> None:
    # Two steps, s = 0, 1, then s_T = 2; V = 10, 20, 30; gamma = 0.5; r = 1, 2; Q(0, .) = 8, Q(1, .) = 16.
    critic = Table(0.5, torch.tensor([[8.0], [16.0], [0.0]]), torch.tensor([10.0, 20.0, 30.0]))
    obs = torch.tensor([[[0], [1]], [[0], [1]]])
    fields = {"obs": obs, "last_obs": torch.tensor([[2], [2]]), "term": torch.tensor([False, True])}
    segments = segments_of([[1.0, 2.0], [1.0, 2.0]], **fields)
    assert Regret(critic, "dir")(segments).tolist() == [-6.0, -6.0]
    assert Regret(critic, "dis_dir")(segments).tolist() == [-4.0, -4.0]
    assert Regret(critic, "sum")(segments).tolist() == [23.0, -7.0]  # the second truly ended: V(s_T) = 0
    assert Regret(critic, "dis_sum")(segments).tolist() == [-0.5, -8.0]


def test_discounted_forms_agree_in_a_deterministic_world() -> None:
    """Ladder A2: telescoping, to 1e-9, with episodes that end and others that do not."""
    world = random_world()
    segments, critic = world.segments(), world.critic(0.9)
    assert segments.term is not None
    assert segments.term.any()
    assert not segments.term.all()
    by_form = {form: Regret(critic, form)(segments) for form in FORMS}
    assert (by_form["dis_dir"] - by_form["dis_sum"]).abs().max() < 1e-9
    assert (by_form["dir"] - by_form["sum"]).abs().max() > 0.5
    assert by_form["dir"].max() < 1e-9, "no segment beats the optimum"


def test_undiscounted_forms_agree_only_at_gamma_one() -> None:
    world = random_world()
    segments = world.segments()
    undiscounted = world.critic(1.0, v=normal(12))
    assert (Regret(undiscounted, "dir")(segments) - Regret(undiscounted, "sum")(segments)).abs().max() < 1e-9
    discounted = world.critic(0.9, v=normal(12))
    assert (Regret(discounted, "dir")(segments) - Regret(discounted, "sum")(segments)).abs().max() > 0.1


def test_shaping_changes_the_partial_return_but_not_the_regret() -> None:
    """Ladder A14: r' = r + gamma Phi(s') - Phi(s), with Phi = 0 after the end."""
    world, gamma = random_world(), 0.9
    segments, critic, phi = world.segments(), world.critic(gamma), normal(12)
    assert segments.rew is not None
    assert segments.last_obs is not None
    assert segments.term is not None
    after = torch.cat([phi[segments.obs[:, 1:, 0]], (phi[segments.last_obs[:, 0]] * ~segments.term).unsqueeze(1)], 1)
    rew = segments.rew + gamma * after - phi[segments.obs[..., 0]]
    shaped = segments_of(rew, obs=segments.obs, act=segments.act, last_obs=segments.last_obs, term=segments.term)
    shaped_critic = Table(gamma, critic.q_table - phi.unsqueeze(1), critic.v_table - phi)
    for form in ("dir", "dis_dir", "dis_sum"):
        assert (Regret(shaped_critic, form)(shaped) - Regret(critic, form)(segments)).abs().max() < 1e-10
    assert (PartialReturn()(shaped) - PartialReturn()(segments)).abs().max() > 0.5


def test_only_stochastic_regret_is_fair_to_the_unlucky() -> None:
    """A lottery: one action, reward 1 or -1, then the end. Nobody chose badly; only ``dir`` says so."""
    critic = Table(1.0, torch.zeros(1, 1), torch.zeros(1))
    obs = torch.zeros(2, 1, 1)
    lottery = segments_of([[1.0], [-1.0]], obs=obs, last_obs=obs[:, 0], term=torch.tensor([True, True]))
    assert PartialReturn()(lottery).tolist() == [1.0, -1.0]
    assert Regret(critic, "sum")(lottery).tolist() == [1.0, -1.0]
    assert Regret(critic, "dir")(lottery).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("form", FORMS)
def test_steps_of_every_score_sum_to_it(form: RegretForm) -> None:
    world = random_world()
    segments = world.segments()
    for score in (
        Regret(world.critic(0.9), form),
        PartialReturn(),
        PartialReturn("mean"),
        PartialReturn("discounted", 0.7),
    ):
        assert isinstance(score, StepScore)
        assert score.steps(segments).shape == (len(segments), segments.length)
        torch.testing.assert_close(score.steps(segments).sum(-1), score(segments), rtol=0, atol=1e-9)


def test_what_human_files_lack() -> None:
    critic, obs = Table(0.9, torch.zeros(4, 1), torch.zeros(4)), torch.zeros(2, 2, 1)
    human = dataclasses.replace(segments_of([[0.0, 0.0], [0.0, 0.0]]), rew=None, last_obs=None, term=None, obs=obs)
    assert Regret(critic, "dir")(human).tolist() == [0.0, 0.0]
    assert Regret(critic, "dis_dir")(human).tolist() == [0.0, 0.0]
    with pytest.raises(InputError, match="true rewards"):
        PartialReturn()(human)
    with pytest.raises(InputError, match="true rewards"):
        Regret(critic, "sum")(human)
    with pytest.raises(InputError, match="last observation"):
        Regret(critic, "dis_sum")(segments_of([[0.0, 0.0], [0.0, 0.0]], last_obs=None))
    with pytest.raises(InputError, match="2 per step"):
        PartialReturn()(segments_of(torch.zeros(3, 4, 2)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("max", None), "aggregate is 'max'"),
        (("discounted", None), "'discounted', and it alone, needs one"),
        (("sum", 0.9), "'discounted', and it alone, needs one"),
        (("discounted", 1.5), "above 0 and at most 1"),
    ],
)
def test_bad_settings_of_the_partial_return(settings: tuple[str, float | None], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PartialReturn(*settings)  # type: ignore[arg-type]


def test_unknown_form() -> None:
    with pytest.raises(InputError, match="form of regret is 'max'"):
        Regret(Table(0.9, torch.zeros(1, 1), torch.zeros(1)), "max")  # type: ignore[arg-type]
