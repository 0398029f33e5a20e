"""OPPO: offline preference-guided policy optimisation by hindsight contexts (Kang et al., ICML 2023).

No reward and no value. An encoder I reads a segment and says in z what kind of behaviour it is; a policy imitates
whatever z asks for; an optimal context z* is moved to where the preferred segments lie. Each update takes

    1. a step of both networks down the information matching loss: with z = I(window),
           L_match = E |a_t - pi(s_<=t, a_<t, z)|^2        on windows of the data
    2. a step of the encoder on labelled pairs, the policy and z* being held:
           L_match(both segments) + w_pref L_pref + w_norm L_norm,
           L_pref = max(0, |z* - z+| - |z* - z-| + margin),    L_norm = (|z| - 1)^2
    3. a step of z* down L_pref, the encoder being held

and acts by pi(. | history, z*): it remembers the last ``context`` steps of an episode. A segment is worth -|z - z*|.

Labels are a fixed budget: the stored pairs. Without a data set (files of human answers) the windows of 1 are cut from
the labelled segments. ``foresight`` > 0 is instead the protocol of the authors' scripted experiments, in which labels
are unlimited: both halves of a fresh batch of windows are compared by what the data set pays in the next ``foresight``
steps (theirs: 200); it takes no labels and sees rewards.

The defaults are the scripted settings. The human ones: context 100, code-size 16, policy-heads 2, star-lr 1e-2,
preference-weight 10, norm hinge, state-weight 1, state-noise 0.1, match-every 2.

Deviations:
- Padding is really masked, and z is a mean over the real tokens; the authors sum over all tokens, padding included.
- The three steps are those of the authors' human experiments; their scripted ones take 1 and 2 as one step, on the two
  halves of an unlimited batch. Step 3 uses the z of step 2 and does not encode again.
- The triplet loss is a mean over the batch's pairs; in their human experiments it is a sum, so that their weight of it
  is another one than ours.
- A tie has margin 0, in both orders (theirs: in one); a label between has margin |2 label - 1|.
- Both networks are of pre-norm blocks; the authors' encoder is a post-norm BERT. Embeddings are not dropped.
- z is added to a step's two tokens; theirs is a token of its own. Places count within the window, not the episode, and
  a segment longer than the context is read in pieces. Windows end anywhere in an episode; theirs begin anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pbrl import losses, rng
from pbrl.agent import Count, Metrics
from pbrl.data.source import Batch, LabelledPairs, Source, Wants
from pbrl.data.windows import Compared, Windows, halves, returns_ahead
from pbrl.descent import descent
from pbrl.errors import InputError
from pbrl.members import Members, check_range, shared
from pbrl.nets.heads import Deterministic
from pbrl.nets.mlp import Normalizer
from pbrl.nets.sequences import Layout, StackedSegmentEncoder, StackedSequencePolicy, pieces
from pbrl.optim import Adam
from pbrl.play.memory import Memory
from pbrl.spec import Spec

_NOISE, _ENCODER, _POLICY = range(3)  # purposes of keys; the compiler cannot hash words


@dataclass(frozen=True)
class OPPOConfig:
    """Settings of OPPO; the defaults are those of the authors' scripted experiments."""

    lr: float = 1e-4
    """Learning rate of both networks."""
    star_lr: float = 1e-3
    """Learning rate of the optimal context z*."""
    star_deviation: float = 2.0
    """Deviation of the normal numbers that z* begins with; other contexts are of length 1."""
    weight_decay: float = 1e-4
    """Rate of AdamW's weight decay, of z* too."""
    clip: float = 0.25
    """Bound on the gradient norm of each network."""
    dropout: float = 0.1
    """Share of attention weights, and of what a block adds, that is dropped in training."""
    preference_weight: float = 0.1
    """w_pref, weight of the triplet loss."""
    norm_weight: float = 0.1
    """w_norm, weight of the loss that keeps contexts of length 1."""
    margin: float = 1.0
    """By how much nearer to z* the preferred segment shall be."""
    state_weight: float = 0.0
    """Weight of predicting the next observation, as the information matching loss also asks in the human settings."""
    state_noise: float = 0.0
    """Deviation of the noise on the observations that the policy sees in step 1."""
    normalize_obs: bool = True
    """Subtract the data's mean from observations and divide by their deviation."""
    norm: Literal["square", "hinge"] = shared("square")
    """L_norm: (|z| - 1)^2, or max(0, |z| - 1)."""
    match_every: int = shared(1)
    """Updates from one step 1 to the next; 1 takes it at each."""
    foresight: int = shared(0)
    """0: learn from the stored pairs. More: unlimited labels by the return of the next so many steps, as told above."""
    warmup: int = shared(10_000, schedule="warmup")
    """Updates over which the policy's learning rate rises linearly."""
    code_size: int = shared(8)
    """Numbers of a context z."""
    context: int = shared(20)
    """Steps that the policy sees and that a window has."""
    width: int = shared(128)
    """Numbers per token, a multiple of both networks' heads."""
    layers: int = shared(3)
    """Blocks of each network."""
    encoder_heads: int = shared(2)
    """Attention heads of the encoder."""
    policy_heads: int = shared(1)
    """Attention heads of the policy."""
    batch_size: int = shared(64)
    """Windows, and pairs, per update."""

    def __post_init__(self) -> None:
        for name in ("lr", "star_lr", "clip"):
            check_range(self, name, 0.0, open_low=True)
        for name in ("weight_decay", "preference_weight", "norm_weight", "margin", "state_weight", "state_noise"):
            check_range(self, name, 0.0)
        check_range(self, "star_deviation", 0.0)
        check_range(self, "dropout", 0.0, 0.99)
        for name in ("foresight", "warmup"):
            check_range(self, name, 0)
        for name in ("match_every", "code_size", "context", "width", "layers", "batch_size"):
            check_range(self, name, 1)
        for name in ("encoder_heads", "policy_heads"):
            check_range(self, name, 1)
            if self.width % getattr(self, name):
                raise InputError(f"OPPOConfig.width is {self.width}, expected a multiple of {name}")


class OPPO(nn.Module):
    """Stacked OPPO."""

    keys: Tensor
    margin: Tensor
    preference_weight: Tensor
    norm_weight: Tensor
    state_weight: Tensor
    state_noise: Tensor

    def __init__(self, spec: Spec, members: Members[OPPOConfig]) -> None:
        super().__init__()
        self.config = config = members.shared
        self.count = Count()
        self.register_buffer("keys", members.keys)
        for name in ("margin", "preference_weight", "norm_weight", "state_weight", "state_noise"):
            self.register_buffer(name, members.column(name))
        self.normalizer = Normalizer(spec, members.column("normalize_obs"))
        sizes = (spec.obs_size, spec.act_size, config.code_size)
        encoder, policy = (
            Layout(config.width, config.layers, heads, config.context, members.column("dropout"), members.dtype, "relu")
            for heads in (config.encoder_heads, config.policy_heads)
        )
        self.encoder = StackedSegmentEncoder(rng.fold(members.keys, "encoder"), *sizes, encoder)
        self.policy = StackedSequencePolicy(rng.fold(members.keys, "policy"), *sizes, policy)
        drawn = rng.normal(rng.fold(members.keys, "star"), 1, config.code_size, dtype=members.dtype)
        self.star = nn.Parameter(members.column("star_deviation").reshape(-1, 1, 1) * drawn)  # [P, 1, Z]
        rates, clip, decay = (members.column(name) for name in ("lr", "clip", "weight_decay"))
        self.encoder_adam = Adam(self.encoder.parameters(), rates, clip=clip, weight_decay=decay)
        self.policy_adam = Adam(self.policy.parameters(), rates, clip=clip, weight_decay=decay)
        self.star_adam = Adam([self.star], members.column("star_lr"), weight_decay=decay)
        self._match = descent(self._matching_loss, members.compile)
        self._compare = descent(self._context_losses, members.compile)

    @property
    def updates(self) -> int:
        """How many updates have been made."""
        return self.count.value

    @property
    def boundaries(self) -> tuple[int, ...]:
        """One stage."""
        return ()

    def prepare(self, source: Source) -> Source:
        """The source with windows of the data set, or else of the labelled segments; with ``foresight``, returns."""
        source = source.with_windows(self.config.context)
        if not self.config.foresight:
            return source
        if source.dataset is None or source.rew is None:
            raise InputError("unlimited labels (foresight above 0) come from rewards, expected a data set")
        longest = int(source.dataset.lengths.max())
        if self.config.foresight > longest:
            found = f"foresight is {self.config.foresight}"
            raise InputError(f"{found}, expected at most {longest}: the steps of the data's longest episode")
        return source.with_reward(returns_ahead(source.rew, source.dataset, self.config.foresight))

    def wants(self) -> Wants:
        """Windows and labelled pairs; with ``foresight``, windows to make the pairs of."""
        count = self.config.batch_size
        return {"windows": 2 * count} if self.config.foresight else {"windows": count, "pairs": count}

    def empty_memory(self, copies: int) -> Memory:
        """No steps: obs (normalised) [P, B, K, O], act [P, B, K, A], present [P, B, K] bool."""
        lead = (len(self.keys), copies, self.config.context)
        obs, act = (self.star.new_zeros(*lead, size) for size in (self.policy.obs_size, self.policy.act_size))
        return {"obs": obs, "act": act, "present": torch.zeros(*lead, dtype=torch.bool, device=obs.device)}

    def act_with(self, memory: Memory, obs: Tensor, key: Tensor | None = None) -> tuple[Tensor, Memory]:
        """obs [P, B, O] -> [P, B, A] as z* asks for after what is remembered; and the memory with this step."""
        with torch.no_grad():
            seen = torch.cat([memory["obs"][:, :, 1:], self.normalizer(obs).unsqueeze(2)], dim=2)
            present = torch.cat([memory["present"][:, :, 1:], torch.ones_like(memory["present"][:, :, :1])], dim=2)
            past = memory["act"][:, :, 1:]
            unknown = torch.zeros_like(memory["act"][:, :, :1])  # its token comes after what it is predicted from
            star = self.star.expand(-1, obs.shape[1], -1)
            mean = self.policy(seen, torch.cat([past, unknown], dim=2), present, star)[0][:, :, -1]
            head = Deterministic(mean)
            act = head.mode() if key is None else head.sample(key)
            return act, {"obs": seen, "act": torch.cat([past, act.unsqueeze(2)], dim=2), "present": present}

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> [P, B, A], as at the first step of an episode."""
        return self.act_with(self.empty_memory(obs.shape[1]), obs, key)[0]

    def judge(self, obs: Tensor, act: Tensor) -> Tensor:
        """-|z - z*| of each segment: obs [P, M, T, O], act [P, M, T, A] -> [P, M]."""
        with torch.no_grad():
            present = torch.ones(obs.shape[:-1], dtype=torch.bool, device=obs.device)
            code: Tensor = self.encoder(self.normalizer(obs), act, present)
            return -length(code - self.star)

    def update(self, batch: Batch) -> Metrics:
        """Information matching, contexts and z*, one step each."""
        metrics: dict[str, Tensor] = {}
        windows, key = batch["windows"], rng.fold(self.keys, "update", self.updates)
        if self.updates % self.config.match_every == 0:
            warmed = min(1.0, (self.updates + 1) / self.config.warmup) if self.config.warmup else 1.0
            both = {self.encoder_adam: 1.0, self.policy_adam: warmed}
            metrics = self._match(both, windows, rng.fold(key, "matching"))
        pairs = halves(windows) if self.config.foresight else stored(batch["pairs"])
        metrics |= self._compare({self.encoder_adam: 1.0, self.star_adam: 1.0}, pairs, rng.fold(key, "contexts"))
        self.count.value += 1
        return metrics

    def _matching_loss(self, windows: Windows, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L_match of windows whose observations are blurred for the policy, [P], and it as a metric."""
        obs = self.normalizer(windows.obs)
        noise = rng.normal(rng.fold(key, _NOISE), *obs.shape[1:], dtype=obs.dtype)
        blurred = obs + self.state_noise.reshape(-1, 1, 1, 1) * noise
        code = self.encoder(obs, windows.act, windows.present, rng.fold(key, _ENCODER))
        loss = self.matching(obs, windows.act, windows.present, code, rng.fold(key, _POLICY), seen=blurred)
        return loss, {"loss_match": loss}

    def matching(
        self, obs: Tensor, act: Tensor, present: Tensor, code: Tensor, key: Tensor | None, *, seen: Tensor
    ) -> Tensor:
        """Squared errors of what the policy makes of ``seen`` and codes [P, M, Z], over steps that are present: [P]."""
        guess, guessed_next = self.policy(seen, act, present, code, key)
        later = present[:, :, :-1] & present[:, :, 1:]
        of_act = mean_error(guess, act, present)
        return of_act + self.state_weight * mean_error(guessed_next[:, :, :-1], obs[:, :, 1:], later)

    def _context_losses(self, pairs: Compared, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of step 2 plus that of step 3, [P], the gradient of neither reaching the other's; and metrics."""
        obs, act, present = (x.flatten(1, 2) for x in (self.normalizer(pairs.obs), pairs.act, pairs.present))
        code = self.encoder(obs, act, present, rng.fold(key, _ENCODER))  # [P, 2 B, Z]
        obs, act, present = (pieces(x, self.config.context) for x in (obs, act, present))
        asked = code.repeat_interleave(obs.shape[1] // code.shape[1], 1)
        match = self.matching(obs, act, present, asked, rng.fold(key, _POLICY), seen=obs)
        norm = length_penalty(code, self.config.norm)
        apart = code.unflatten(1, (-1, 2))  # [P, B, 2, Z]
        star, margin = self.star.unsqueeze(2), self.margin[:, None]
        held, moved = length(star.detach() - apart), length(star - apart.detach())  # [P, B, 2], from z* to each segment
        prefer, move = (losses.triplet(far[..., 0], far[..., 1], pairs.label, margin).mean(1) for far in (held, moved))
        # Twice: the authors add the losses of both segments.
        loss = 2.0 * match + 2.0 * self.norm_weight * norm + self.preference_weight * prefer
        found = {
            "loss_pairs": match,
            "loss_norm": norm,
            "loss_preference": prefer,
            "accuracy": losses.accuracy(held[..., 0] - held[..., 1], pairs.label),
        }
        return loss + move, found


def stored(pairs: LabelledPairs) -> Compared:
    """Stored pairs, whose segments have no padding."""
    present = torch.ones(pairs.obs.shape[:-1], dtype=torch.bool, device=pairs.obs.device)
    return Compared(pairs.obs, pairs.act, present, pairs.label)


def mean_error(guess: Tensor, target: Tensor, present: Tensor) -> Tensor:
    """Mean squared error over numbers and steps that are present: two [P, M, T, .], present [P, M, T] -> [P]."""
    weight = present.to(guess.dtype)
    return ((guess - target).square().mean(-1) * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1.0)


def length(code: Tensor) -> Tensor:
    """[..., Z] -> [...], with gradient 0 at 0."""
    found: Tensor = torch.linalg.vector_norm(code, dim=-1)
    return found


def length_penalty(code: Tensor, norm: Literal["square", "hinge"]) -> Tensor:
    """L_norm: codes [P, M, Z] -> [P]."""
    excess = length(code) - 1.0
    return (excess.square() if norm == "square" else excess.clamp(min=0.0)).mean(1)
