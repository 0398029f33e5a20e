"""The options of ``pbrl train`` that all agents share. Their docstrings are the command line's help."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from pbrl.errors import InputError

from .front_options import FrontOptions
from .online_options import MOST, OnlineOptions
from .population_options import PopulationOptions
from .query_options import QueryOptions

Name = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
Count = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
Number = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]
Precision = Literal["float32", "float64", "bf16"]


@dataclass(frozen=True)
class DataOptions:
    """What to learn from, and where to play."""

    dataset: Name = None
    """Data set: a name that `pbrl data list` shows, such as local/reacher/mixed-v1, or a file (ours, D4RL's)."""
    env: Name = None
    """Simulator to evaluate in, and with --env-steps to learn in, such as Reacher-v5. By default the one that the data
    set names."""


@dataclass(frozen=True)
class LabelOptions:
    """Who says which of two segments is better, for agents that take labels; the others learn without.

    Members of one run get the same pairs.
    """

    labels: tuple[str, ...] = ()
    """partial_return (or with :sum, :mean, :discounted), regret (or with :dir, :dis_dir, :sum, :dis_sum), or a file of
    answers: our .hdf5 or .npz of humans; or what no reward explains: votes of columns such as majority:obs0,-obs1,act0
    or share:obs0,obs1, or slow_then_fast:obs1:0.3; for agents that ask, page (or page:FOLDER): people answer at the
    page of pbrl label. Several: members for each. none (or true_reward): for agents that
    take no labels. By default partial_return if the agent takes labels."""
    pairs: int = 1000
    """How many pairs of segments to learn from (less those that label-skip skips)."""
    segment_length: int = 25
    """Steps in a segment."""
    list_length: int = 4
    """Segments that are put in order at a time, for --feedback rankings; --pairs counts such lists then."""
    held_out: float = 0.1
    """Share of the episodes put aside, from which about the same share of all pairs is drawn to measure how well the
    agent predicts labels. Of a file of answers: share of its pairs. 0: none."""
    label_seed: int = 0
    """Seed of which pairs are asked and how they are answered."""
    label_beta: float = math.inf
    """Rationality: P(second preferred) = sigmoid(beta (score 2 - score 1)). inf: the better one, always."""
    label_mistake: float = 0.0
    """Probability that an answer is turned round."""
    label_equal: float = 0.0
    """Pairs whose scores differ by less than this share of the margin are ties."""
    label_skip: float = 0.0
    """Pairs whose better score is below this share of the margin are skipped."""
    label_myopia: float = 1.0
    """Weight of each step relative to the next one: below 1, late steps of a segment count more."""
    label_margin: Number = None
    """What label-equal and label-skip are shares of, in units of the score. By default, for partial_return alone, the
    mean return of a segment: over the data set, or for an agent that asks in the loop over the member's last ten
    episodes (where that is negative, nothing is skipped or a tie)."""
    label_gamma: Number = None
    """Discount of partial_return:discounted, which needs it."""
    label_users: int = 1
    """Users who answer, each pair being put to one of them. Agents for many users, such as vpl, are told to whom."""
    label_opposed: float = 0.0
    """Share of the users who prefer the opposite."""


@dataclass(frozen=True)
class RunOptions:
    """How long to train, how often to look, and where to write."""

    seed: tuple[int, ...] = (0,)
    """One or more seeds; every combination of swept values is trained with each of them, all as one stack."""
    updates: int = 10_000
    """Steps of training on the data set, over all stages. The papers' counts, such as bc-updates = 200000, are for runs
    of up to a million: stages that do not fit are shortened in proportion, unless you set them yourself."""
    eval_every: Count = None
    """Updates between evaluations. By default a tenth of updates."""
    episodes: int = 10
    """Episodes per member and evaluation, the same ones for all. 0: no evaluation."""
    checkpoint_every: Count = None
    """Updates between checkpoints: a multiple or a divisor of eval-every. By default the same."""
    out: Path = Path("runs")
    """Folder of all runs; this one gets OUT/train/<time>-<name>."""
    name: Name = None
    """What to call the run. By default the agent and the labels."""


@dataclass(frozen=True)
class MachineOptions:
    """What to compute on, and how."""

    device: str = "auto"
    """cpu, cuda, cuda:1, ... auto: a GPU if there is one."""
    precision: Precision = "float32"
    """float32, float64, or bf16: float32 with matrix products in bfloat16."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the losses: worth half a minute from some 20000 updates on, which is what auto goes by."""
    threads: int = 0
    """CPU threads. 0: as many as torch chooses."""


@dataclass(frozen=True)
class TrainOptions:
    """All of them."""

    data: DataOptions = field(default_factory=DataOptions)
    label: LabelOptions = field(default_factory=LabelOptions)
    run: RunOptions = field(default_factory=RunOptions)
    online: OnlineOptions = field(default_factory=OnlineOptions)
    query: QueryOptions = field(default_factory=QueryOptions)
    front: FrontOptions = field(default_factory=FrontOptions)
    population: PopulationOptions = field(default_factory=PopulationOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)

    def __post_init__(self) -> None:
        self._at_least(1, pairs=self.label.pairs, segment_length=self.label.segment_length)
        self._at_least(0 if self.online.env_steps else 1, updates=self.run.updates)
        if self.run.updates > MOST:
            raise InputError(f"updates is {self.run.updates}, expected at most {MOST}")
        self._at_least(0, episodes=self.run.episodes, threads=self.machine.threads, label_seed=self.label.label_seed)
        self._at_least(1, label_users=self.label.label_users)
        self._at_least(2, list_length=self.label.list_length)
        if not 0 <= self.label.label_opposed <= 1:
            raise InputError(f"label_opposed is {self.label.label_opposed:g}, expected a share of 0 to 1")
        users, share = self.label.label_users, self.label.label_opposed
        if users > 1 and 0 < share < 1 and round(share * users) in (0, users):
            who = "all" if round(share * users) else "none"
            expected = f"expected one such as {1 / users:.2g}, for one of them"
            raise InputError(f"label_opposed is {share:g} of {users} users, which makes {who} of them: {expected}")
        self._at_least(1, eval_every=self.eval_every, checkpoint_every=self.checkpoint_every)
        seeds = self.run.seed
        if not seeds:
            raise InputError("seed has no values, expected at least one")
        self._at_least(0, seed=min(seeds))
        for name, value in (("label_seed", self.label.label_seed), ("seed", max(seeds))):
            if value >= 1 << 63:
                raise InputError(f"{name} is {value}, expected a number below 2 to the power of 63")
        twice = [seed for seed in seeds if seeds.count(seed) > 1]
        if twice:
            raise InputError(f"seed {twice[0]} is given twice, expected different ones: equal members learn the same")
        if not 0 <= self.label.held_out < 1:
            raise InputError(f"held_out is {self.label.held_out:g}, expected a share of at least 0 and below 1")
        long, short = max(self.eval_every, self.checkpoint_every), min(self.eval_every, self.checkpoint_every)
        if long % short:
            found = f"eval_every is {self.eval_every} and checkpoint_every {self.checkpoint_every}"
            raise InputError(f"{found}, expected one to be a multiple of the other")

    @staticmethod
    def _at_least(least: int, **values: int) -> None:
        for name, value in values.items():
            if value < least:
                raise InputError(f"{name} is {value}, expected at least {least}")

    @property
    def offline_updates(self) -> int:
        """Updates on data before those in the simulator: none without a data set."""
        return 0 if self.online.env_steps and self.data.dataset is None else self.run.updates

    @property
    def all_updates(self) -> int:
        """Updates on data and in the simulator."""
        online = max(0, self.online.env_steps - self.online.random(self.data.dataset is not None))
        return self.offline_updates + round(online * self.online.updates_per_step)

    @property
    def eval_every(self) -> int:
        """Updates between evaluations."""
        return max(1, self.run.updates // 10) if self.run.eval_every is None else self.run.eval_every

    @property
    def checkpoint_every(self) -> int:
        """Updates between checkpoints."""
        return self.eval_every if self.run.checkpoint_every is None else self.run.checkpoint_every

    @property
    def record_every(self) -> int:
        """Updates between rows of metrics: about a hundred times, and whenever the other two want to look."""
        step = min(self.eval_every, self.checkpoint_every)
        wanted = max(1, self.run.updates // 100)
        return max(size for size in range(1, min(step, wanted) + 1) if step % size == 0)

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold: infinity and paths become words."""
        content = dataclasses.asdict(self)
        content["label"]["label_beta"] = str(self.label.label_beta)
        content["run"]["out"] = str(self.run.out)
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TrainOptions:
        """The options that ``to_json`` wrote.

        Raises:
            TypeError, KeyError, ValueError: other contents.
        """
        label = {**content["label"], "label_beta": float(content["label"]["label_beta"])}
        run = {**content["run"], "out": Path(content["run"]["out"]), "seed": tuple(content["run"]["seed"])}
        label["labels"] = tuple(label["labels"])
        front = content.get("front", {})  # older runs have neither it nor a population
        front = {**front, "reference_point": tuple(front.get("reference_point", ()))}
        population: dict[str, Any] = {
            name: tuple(x) if isinstance(x, list) else x for name, x in content.get("population", {}).items()
        }
        return cls(
            data=DataOptions(**content["data"]),
            label=LabelOptions(**label),
            run=RunOptions(**run),
            online=OnlineOptions(**content["online"]),
            query=QueryOptions(**content["query"]),
            front=FrontOptions(**front),
            population=PopulationOptions(**population),
            machine=MachineOptions(**content["machine"]),
        )
