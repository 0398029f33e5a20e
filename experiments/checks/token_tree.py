"""T1 to T7: in a tree of tokens, is a language model's log-ratio secretly the optimal Q-function of its reward?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit, log_softmax, logsumexp
from torch import Tensor

from pbrl.parts import direct_preference as direct
from pbrl.theory.alignment_bandit import minimise
from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.mdps import Floats
from pbrl.theory.measures import exactly

PAPER = "From r to Q* (Rafailov et al., 2024)"
TOKENS, DEPTH, BETA = 3, 4, 0.3
_SETTING = f"random trees of {TOKENS} tokens and depth {DEPTH}, standard normal token rewards, beta {BETA}"


@dataclass(frozen=True)
class Tree:
    """All prefixes by depth: level t has TOKENS^t of them, and the children of node n are TOKENS n + token.

    Attributes:
        reward: DEPTH arrays [TOKENS^t, TOKENS].
        reference: DEPTH arrays of the same shapes, log-probabilities.
    """

    reward: tuple[Floats, ...]
    reference: tuple[Floats, ...]

    @classmethod
    def random(cls, *seed: int) -> Tree:
        """Standard normal rewards and reference logits."""
        draw = np.random.default_rng(seed)
        shapes = [(TOKENS**t, TOKENS) for t in range(DEPTH)]
        logits = [draw.standard_normal(shape) for shape in shapes]
        reward = tuple(draw.standard_normal(shape) for shape in shapes)
        return cls(reward, tuple(np.asarray(log_softmax(one, axis=-1)) for one in logits))

    def solve(self, reward: tuple[Floats, ...] | None = None) -> tuple[list[Floats], list[Floats]]:
        """Soft-optimal values of prefixes, DEPTH + 1 arrays [TOKENS^t], and log-policies, DEPTH arrays."""
        rewards = self.reward if reward is None else reward
        values, policies = [np.zeros(TOKENS**DEPTH)], list[Floats]()
        for rew, ref in zip(reversed(rewards), reversed(self.reference)):
            q = rew + values[0].reshape(-1, TOKENS)
            value = BETA * logsumexp(ref + q / BETA, axis=-1)
            policies.insert(0, ref + (q - value[:, None]) / BETA)
            values.insert(0, value)
        return values, policies

    def leaves(self, table: tuple[Floats, ...] | list[Floats]) -> Floats:
        """[TOKENS^DEPTH] sums of a token table along the way to each leaf."""
        total = np.zeros(1)
        for level in table:
            total = (total[:, None] + level).ravel()
        return total


def implicit(tree: Tree, policies: list[Floats]) -> list[Floats]:
    """beta log pi / reference, token by token."""
    return [BETA * (policy - ref) for policy, ref in zip(policies, tree.reference)]


def largest(trial: Trial, *, kind: str, broken: bool) -> Measured:
    """The largest error of an identity over random trees."""
    errors = [ERRORS[kind](trial.seed, seed, broken) for seed in range(trial.pick(5, 30, 100))]
    return exactly(max(errors))


def _returns(root: int, seed: int, broken: bool) -> float:
    """Return of a leaf against V*(empty) plus its log-ratios."""
    tree = Tree.random(root, seed)
    values, policies = tree.solve()
    if broken:
        policies = tree.solve(tuple(0.9 * level for level in tree.reward))[1]
    return float(np.abs(tree.leaves(tree.reward) - values[0] - tree.leaves(implicit(tree, policies))).max())


def _credit(root: int, seed: int, broken: bool) -> float:
    """A token's implicit reward against its reward, shaped by V*; or, broken, against its reward as it is."""
    tree = Tree.random(root, seed)
    values, policies = tree.solve()
    error = 0.0
    for t, (found, rew) in enumerate(zip(implicit(tree, policies), tree.reward)):
        shaping = 0.0 if broken else values[t + 1].reshape(-1, TOKENS) - values[t][:, None]
        error = max(error, float(np.abs(found - rew - shaping).max()))
    return error


def _sequences(root: int, seed: int, broken: bool) -> float:
    """The token-level optimum's law of leaves against the bandit optimum over whole sequences."""
    tree = Tree.random(root, seed)
    _, policies = tree.solve()
    score = tree.leaves(tree.reference) + tree.leaves(tree.reward) / BETA
    if broken:  # the greedy mistake: each token weighed by its own reward alone
        policies = [np.asarray(log_softmax(r + w / BETA, axis=-1)) for r, w in zip(tree.reference, tree.reward)]
    return float(np.abs(np.exp(tree.leaves(policies)) - np.exp(score - logsumexp(score))).max())


def _representable(root: int, seed: int, broken: bool) -> float:
    """Any policy against the optimum of its own log-ratio as a reward (broken: of its log-probability)."""
    tree = Tree.random(root, seed)
    draw = np.random.default_rng([root, seed, 1])
    given = [np.asarray(log_softmax(draw.standard_normal(level.shape), axis=-1)) for level in tree.reward]
    reward = tuple(BETA * level for level in given) if broken else tuple(implicit(tree, given))
    _, policies = tree.solve(reward)
    return max(float(np.abs(a - b).max()) for a, b in zip(policies, given))


def _shaped(root: int, seed: int, broken: bool) -> float:
    """Change of the optimum under potentials that are 0 at the leaves (broken: not 0 there)."""
    tree = Tree.random(root, seed)
    draw = np.random.default_rng([root, seed, 2])
    potential = [draw.standard_normal(TOKENS**t) for t in range(DEPTH + 1)]
    if not broken:
        potential[-1] = np.zeros_like(potential[-1])
    moved = tuple(
        rew + potential[t + 1].reshape(-1, TOKENS) - potential[t][:, None] for t, rew in enumerate(tree.reward)
    )
    return max(float(np.abs(a - b).max()) for a, b in zip(tree.solve()[1], tree.solve(moved)[1]))


def _search(root: int, seed: int, broken: bool) -> float:
    """Return lost by the leaf of largest implicit reward (broken: by taking the token of largest reward each time)."""
    tree = Tree.random(root, seed)
    _, policies = tree.solve()
    returns, leaf = tree.leaves(tree.reward), 0
    for level in tree.reward:
        leaf = TOKENS * leaf + int(level[leaf].argmax())
    return float(returns.max() - returns[leaf if broken else tree.leaves(implicit(tree, policies)).argmax()])


def _fitted(root: int, seed: int, broken: bool) -> float:
    """Error of DPO from exact preferences between leaves (broken: only pairs that share the first token)."""
    tree = Tree.random(root, seed)
    returns = tree.leaves(tree.reward)
    count = len(returns)
    one, two = np.triu_indices(count, 1)
    if broken:
        kept = one // (count // TOKENS) == two // (count // TOKENS)
        one, two = one[kept], two[kept]
    first, second = torch.from_numpy(one), torch.from_numpy(two)
    label = torch.from_numpy(expit(returns[two] - returns[one]))
    reference = torch.from_numpy(tree.leaves(tree.reference))

    def risk(logits: Tensor) -> Tensor:
        ratio = logits.log_softmax(-1) - reference
        return direct.dpo(ratio[first], ratio[second], label, BETA).mean()

    found = minimise(risk, reference).softmax(-1).numpy()
    return float(np.abs(found - np.exp(tree.leaves(tree.solve()[1]))).max())


ERRORS = {
    "returns": _returns,
    "credit": _credit,
    "sequences": _sequences,
    "representable": _representable,
    "shaped": _shaped,
    "search": _search,
    "fitted": _fitted,
}


def _check(id: str, kind: str, claim: str, control: str, assumption: str, bound: float = 1e-10) -> Check:
    return Check(
        id=id,
        paper=PAPER,
        claim=claim,
        setting=_SETTING,
        assumptions=("deterministic transitions: a token is appended", assumption),
        bound=bound,
        bound_says="rounding",
        provenance="paper",
        statistic=lambda trial: largest(trial, kind=kind, broken=False),
        control=Control(control, lambda trial: largest(trial, kind=kind, broken=True)),
    )


T1 = _check(
    "T1",
    "returns",
    "A sequence's return is V* of the empty prefix plus beta times its log-ratio of optimum to reference.",
    "the optimum of 0.9 times the reward",
    "the policy is optimal",
)
T2 = _check(
    "T2",
    "credit",
    "A token's implicit reward beta log pi / reference is its reward, shaped by V*.",
    "its reward without the shaping",
    "the policy is optimal",
)
T3 = _check(
    "T3",
    "sequences",
    "The token-level optimum gives whole sequences the law of the bandit optimum.",
    "each token weighed by its own reward alone",
    "the policy is optimal",
)
T4 = _check(
    "T4",
    "representable",
    "Every policy is the optimum of some token reward: its own log-ratio.",
    "its log-probability, without the reference",
    "the policy is positive everywhere",
)
T5 = _check(
    "T5",
    "shaped",
    "Potentials that vanish at the leaves change no optimum: rewards are known up to them only.",
    "potentials that do not vanish at the leaves",
    "one optimum per class of rewards",
)
T6 = _check(
    "T6",
    "search",
    "Search for the sequence of largest implicit reward finds the one of largest return.",
    "the token of largest reward each time",
    "the tree is searched completely",
)
T7 = _check(
    "T7",
    "fitted",
    "DPO from exact preferences between all sequences finds the optimum.",
    "only pairs with the same first token: the first token's choice is not identified",
    "preferences by return, with exact probabilities",
    1e-8,
)
