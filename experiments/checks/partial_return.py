"""K3, K5: what preferences by partial return do not tell, and what fitting them to regret preferences finds."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from pbrl.data.files import replacing
from pbrl.figures import PALETTE, STYLE
from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.delivery import HOUSE, MUD, board, delivery_grid
from pbrl.theory.discounted import Solution, policy_iteration
from pbrl.theory.instances import dirichlet_discounted, random_walks
from pbrl.theory.mdps import DiscountedMDP, Floats
from pbrl.theory.measures import exactly

PAPER = "Regret preferences (Knox et al., TMLR 2024)"
SHIFT = 3.0
FOLDER = "PBRL_DELIVERY_DIR"
"""Environment variable: a folder with the authors' board and arrays, which have no licence and do not ship."""


def _board() -> DiscountedMDP:
    return delivery_grid(_cells(), gamma=1.0)


def _cells() -> NDArray[np.int64]:
    """The board's codes: of the authors' file (``...board.json``) where the user has it, else this library's."""
    folder = os.environ.get(FOLDER)
    found = sorted(Path(folder).glob("*board.json")) if folder else []
    return board(found[0] if found else None)


def _shifted(mdp: DiscountedMDP) -> DiscountedMDP:
    """A constant is added to the reward of every step; the absorbing end stays worth nothing."""
    reward = mdp.reward + SHIFT
    reward[-1] = 0.0
    # With rewards for every step no optimal policy need end: a discount close to 1 keeps values finite.
    return replace(mdp, reward=reward, gamma=0.999)


class Flips(NamedTuple):
    """Start states [S - 1] in which paying the constant in every step changes what is best.

    Attributes:
        greedy: the first of the optimal actions, in the order up, down, left, right, is another one.
        every: no optimal action is optimal any more.
    """

    greedy: NDArray[np.bool_]
    every: NDArray[np.bool_]


def _optimal(solution: Solution) -> NDArray[np.bool_]:
    optimal: NDArray[np.bool_] = solution.advantage > -1e-8 * (1.0 + np.abs(solution.value[..., None]))
    return optimal


def flips(mdp: DiscountedMDP) -> Flips:
    """Where the constant changes what is best, against the undiscounted optimum.

    On the authors' board 55 and 48 of 92. A prototype had counted 54 greedy actions, as plain value iteration does
    whose rounding decides one state's tie (a test shows it).
    """
    plain, paid = (_optimal(policy_iteration(one))[:-1] for one in (mdp, _shifted(mdp)))
    return Flips(plain.argmax(-1) != paid.argmax(-1), np.logical_not((plain & paid).any(-1)))


def _differences(mdp: DiscountedMDP, other: DiscountedMDP, trial: Trial, by_regret: bool) -> float:
    """Largest change, between two MDPs, of a preference's statistic over pairs of equally long unfinished segments."""
    state, act = random_walks(mdp, trial.pick(2000, 20_000, 100_000), 3, seed=[trial.seed, 5])
    alive = (state < len(mdp.reward) - 1).all(-1)
    state, act = state[alive], act[alive]

    def score(problem: DiscountedMDP) -> Floats:
        table = policy_iteration(problem).advantage if by_regret else problem.reward
        total: Floats = table[state[:, :-1], act].sum(-1)
        return total[1:] - total[:-1]

    return float(np.abs(score(mdp) - score(other)).max())


def _blind(trial: Trial, by_regret: bool) -> Measured:
    mdp = replace(_board(), gamma=0.999)
    found = flips(_board())
    greedy, every = int(found.greedy.sum()), int(found.every.sum())
    note = f"of {len(mdp.reward) - 1} greedy actions {greedy} change; in {every} states no optimal action stays optimal"
    if 2 * greedy <= len(mdp.reward) - 1 or every == 0:
        raise ArithmeticError(f"the shifted reward is no counterexample: {note}")
    return exactly(_differences(mdp, _shifted(mdp), trial, by_regret), note)


def _map(trial: Trial, path: Path) -> str:
    """The board, with the states whose optimal actions the constant changes."""
    del trial
    cells = _cells()
    found = flips(_board())
    shown = np.zeros((*cells.shape, 3)) + 0.93
    stands = ~np.isin(cells % MUD, (1, HOUSE, 3))
    colour = np.array([[0.78, 0.89, 0.96], [0.99, 0.88, 0.75], [0.95, 0.70, 0.52]])
    shown[stands] = colour[np.where(found.every, 2, found.greedy.astype(int))]
    with rc_context(STYLE), replacing(path) as temporary:
        figure = Canvas(figsize=(5.2, 5.2), dpi=160)
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.imshow(shown)
        names = {1: "goal", 2: "house", 3: "sheep", 4: "coin", 5: "block"}
        for (row, column), code in np.ndenumerate(cells):
            text = names.get(int(code % MUD), "") + ("\nmud" if code >= MUD else "")
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color=PALETTE[7])
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xticks(np.arange(cells.shape[1] - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(cells.shape[0] - 1) + 0.5, minor=True)
        axes.grid(which="minor", color="white", lw=1.0)
        axes.tick_params(which="minor", length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(f"{int(found.greedy.sum())} of {found.greedy.size} greedy actions change", fontsize=11)
        figure.savefig(temporary, format="png", bbox_inches="tight", metadata={"Software": None})
    return (
        f"Orange: no optimal action stays optimal when every step pays {SHIFT:g} more; pale orange: the first of the "
        "optimal actions (up, down, left, right) is another one. Preferences by partial return between equally long "
        "unfinished segments are the same with and without."
    )


K3_SHIFT = Check(
    id="K3-shift",
    paper=PAPER,
    claim="Adding a constant to every reward changes no preference by partial return, and most greedy actions.",
    setting="delivery grid, 92 start states, +3 per step; pairs of random segments of 3 steps that do not end",
    assumptions=("equally long segments", "episodes can be ended, so that their length is a choice"),
    bound=1e-10,
    bound_says="rounding: the constant cancels in the difference of two sums of as many rewards",
    provenance="derived",
    statistic=lambda trial: _blind(trial, False),
    control=Control("preferences by regret, which do see it", lambda trial: _blind(trial, True)),
    figure=_map,
)


def _lottery(prize: float) -> tuple[Floats, DiscountedMDP]:
    """A safe action pays 0.5; a risky one wins ``prize`` half of the time. Realised rewards, and the MDP.

    States: start, won, lost, end. The prize is paid on leaving "won", so that a reward is one of state and action.
    """
    transition, reward = np.zeros((4, 2, 4)), np.zeros((4, 2))
    transition[0, 0, 3] = 1.0
    transition[0, 1, [1, 2]] = 0.5
    transition[1:, :, 3] = 1.0
    reward[0, 0], reward[1] = 0.5, prize
    return np.array([0.5, prize, 0.0]), DiscountedMDP(transition, reward, 1.0, np.eye(4)[0], name="lottery")


def _order(trial: Trial, noiseless: bool) -> Measured:
    """Largest difference between two prizes in how segments are preferred, although other actions are optimal."""
    del trial
    (small, one), (large, two) = _lottery(0.8), _lottery(1.5)
    best = [int(policy_iteration(m).q[0].argmax()) for m in (one, two)]
    if best[0] == best[1]:
        raise ArithmeticError("both prizes have the same optimal action: no counterexample")
    gaps = [returns[:, None] - returns for returns in (small, large)]
    tables = [np.sign(gap) if noiseless else 1.0 / (1.0 + np.exp(-gap)) for gap in gaps]
    return exactly(float(np.abs(tables[0] - tables[1]).max()), "optimal actions: safe at 0.8, risky at 1.5")


K3_RISK = Check(
    id="K3-risk",
    paper=PAPER,
    claim="Noiseless preferences by partial return cannot tell a prize worth its risk from one that is not.",
    setting="a safe reward of 0.5 against a prize won half of the time; prizes 0.8 and 1.5; all realised segments",
    assumptions=("stochastic transitions", "noiseless preferences"),
    bound=0.0,
    bound_says="the tables are equal: 0 < 0.5 < prize either way",
    provenance="derived",
    statistic=lambda trial: _order(trial, True),
    control=Control("logistic noise of known scale, which shows magnitudes", lambda trial: _order(trial, False)),
)


def _path(longer: bool) -> DiscountedMDP:
    """From the start one step of reward 3 to the end, or three (two if not ``longer``) steps of reward 1.4."""
    steps = 3 if longer else 2
    states = steps + 1
    transition, reward = np.zeros((states, 2, states)), np.zeros((states, 2))
    for s in range(steps):
        transition[s, :, s + 1], reward[s] = 1.0, 1.4
    transition[0, 1] = np.eye(states)[-1]
    reward[0, 1] = 3.0
    transition[-1, :, -1] = 1.0
    return DiscountedMDP(transition, reward, 1.0, np.eye(states)[0], name="two ways")


def _single_steps(trial: Trial, by_regret: bool) -> Measured:
    """Difference between the two MDPs in the order of the start's actions and a middle step, by single steps."""
    del trial
    order = []
    for longer in (True, False):
        mdp = _path(longer)
        solution = policy_iteration(mdp)
        table = solution.advantage if by_regret else mdp.reward
        chosen = np.array([table[0, 0], table[0, 1], table[1, 0]])
        order.append(np.sign(np.round(chosen[:, None] - chosen, 9)))
    best = [int(policy_iteration(_path(longer)).q[0].argmax()) for longer in (True, False)]
    if best[0] == best[1]:
        raise ArithmeticError("both ways have the same optimal action: no counterexample")
    return exactly(float(np.abs(order[0] - order[1]).max()))


K3_STEPS = Check(
    id="K3-steps",
    paper=PAPER,
    claim="The order of single steps by reward does not determine the order of paths.",
    setting="one step of reward 3, or a path of 2 or 3 steps of 1.4 each: 2.8 < 3 < 4.2; deterministic, no noise",
    assumptions=("segments of one step", "noiseless preferences by partial return"),
    bound=0.0,
    bound_says="the orders are equal, while the optimal first action differs",
    provenance="derived",
    statistic=lambda trial: _single_steps(trial, False),
    control=Control("preferences by regret", lambda trial: _single_steps(trial, True)),
)


def _as_reward(trial: Trial, greedy: bool, pinned: bool) -> Measured:
    """Share of MDPs lost when the optimal advantage is taken for a reward: acted on greedily, or planned with."""
    lost, count = 0, trial.pick(20, 100, 400)
    for seed in range(count):
        mdp = dirichlet_discounted(6, 3, 0.95, seed=[trial.seed, seed, 7], deterministic=True, absorbing=True)
        advantage = policy_iteration(mdp).advantage
        learned = advantage.copy()
        if not pinned:  # preferences fix the learned reward but for a constant; here it is one that pays for staying
            learned = learned + 1.0
            learned[-1] = 0.0
        q = learned if greedy else policy_iteration(replace(mdp, reward=learned)).q
        lost += int((np.take_along_axis(advantage, q.argmax(-1)[:, None], -1)[:-1] < -1e-8).any())
    return exactly(lost / count, f"{lost} of {count} MDPs are acted in badly")


K5_GREEDY = Check(
    id="K5-greedy",
    paper="Optimal advantage as reward (Knox et al., AAAI 2024)",
    claim="Acting greedily on what regret preferences teach a partial-return learner is optimal.",
    setting="random deterministic MDPs with an end, 6 states, 3 actions; the fitted reward is A* up to a constant",
    assumptions=("preferences by regret", "the fit is exact: A* and a constant"),
    bound=0.0,
    bound_says="argmax A* is optimal in every state, whatever the constant",
    provenance="derived",
    statistic=lambda trial: _as_reward(trial, True, False),
    control=Control(
        "planning with it as a reward, the end not shifted with the rest", lambda trial: _as_reward(trial, False, False)
    ),
)

K5_PINNED = Check(
    id="K5-pinned",
    paper="Optimal advantage as reward (Knox et al., AAAI 2024)",
    claim="Planning with A* as the reward is optimal too where absorbing states are pinned to 0 on its own scale.",
    setting="random deterministic MDPs with an end, 6 states, 3 actions",
    assumptions=("preferences by regret", "the constant is the one with max_a A* = 0"),
    bound=0.0,
    bound_says="A* is at most 0 everywhere and 0 along optimal paths, so that they are optimal for it",
    provenance="derived",
    statistic=lambda trial: _as_reward(trial, False, True),
    control=Control("a constant of +1 per step: loops pay", lambda trial: _as_reward(trial, False, False)),
)
