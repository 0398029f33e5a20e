"""Which pairs people are asked about: at random, of a file, or those about which reward models disagree.

    python -m experiments.labelling.choose DATABASE      (called by ``supply``) put another session of pairs, if due

By disagreement: the first fifth of the pairs is drawn at random. Whenever fewer than half of a fifth wait for a first
answer, five reward networks are fitted to the answers so far, and the next fifth is those of ten times as many
candidates on which their predictions differ most (Christiano et al. 2017). It runs in a process of its own, so that
nobody at the page waits for it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from agents.preference.reward_model import RewardModel, RewardModelConfig
from pbrl import data, loops, rng
from pbrl.asking.queries import candidates, choose
from pbrl.data import Dataset, Pairs, Preferences
from pbrl.data.files import SUFFIXES
from pbrl.data.source import Source
from pbrl.errors import InputError
from pbrl.members import Members

from .exported import preferences
from .pairs import from_file, put, uniform
from .store import Store
from .supply import is_due

PAIRS, LENGTH, SESSIONS = 100, 50, 5
UPDATES = 300
MODEL = RewardModelConfig(
    lr=1e-3, normalize_obs=True, aggregate="mean", bounded=False, ensemble=5, hidden=(64, 64), batch_size=32
)
FILES = (*SUFFIXES, ".npz", ".csv")


@dataclass(frozen=True)
class Choice:
    """Which pairs of which data set; the fields are the options of ``pbrl label``."""

    dataset: str
    fingerprint: str
    env: str
    query: str
    question: str
    pairs: int | None
    segment_length: int | None
    overlap: float
    repeat: float
    seed: int

    @property
    def total(self) -> int:
        """How many pairs there will be, repeated ones apart."""
        return PAIRS if self.pairs is None else self.pairs

    @property
    def session(self) -> int:
        """How many pairs are chosen at once."""
        return self.total if self.query == "uniform" else max(1, self.total // SESSIONS)


def first_pairs(choice: Choice, dataset: Dataset) -> Callable[[Store], int]:
    """What puts the first pairs into a store and tells how many are new; made before there is one.

    Raises:
        InputError: an unknown query, a file that is none or does not fit, or segments longer than every episode.
    """
    path = Path(choice.query).expanduser()
    if path.suffix in FILES:
        pairs = from_file(path, dataset, choice.segment_length, choice.pairs)
    elif choice.query in ("uniform", "disagreement"):
        pairs = _session(choice, dataset, None, 0)
    else:
        raise InputError(f"query is {choice.query!r}, expected uniform, disagreement or a file ({', '.join(FILES)})")
    lasting = choice.query == "disagreement" and choice.session < choice.total

    def put_first(store: Store) -> int:
        total = choice.total if lasting else len(pairs)
        new = _put(store, choice, pairs, 0, total)
        store.tell_about(
            session=str(choice.session),
            choice=json.dumps(dataclasses.asdict(choice)),
            fingerprint=choice.fingerprint,
            question=choice.question,
            more="coming" if lasting and len(_originals(store)) < total else "",
        )
        return new

    return put_first


def _put(store: Store, choice: Choice, pairs: Pairs, skip: int, total: int) -> int:
    shares = {"overlap": choice.overlap, "repeat": choice.repeat}
    return put(store, pairs, choice.env, choice.question, **shares, skip=skip, total=total)


def _session(choice: Choice, dataset: Dataset, told: Preferences | None, done: int) -> Pairs:
    """The next pairs after ``done`` ones, by the answers so far (None: at random)."""
    count, length = min(choice.session, choice.total - done), choice.segment_length or LENGTH
    if told is None:
        return uniform(dataset, done + count, length, choice.seed).take(torch.arange(done, done + count))
    key = rng.fold(rng.keys([choice.seed])[0], "session", done)
    pool = Pairs.sample(dataset, candidates("disagreement", count), length, key)
    model = _fitted(told, dataset, choice.seed)
    both = [torch.stack([x[pool.first], x[pool.second]], 1)[None] for x in (pool.segments.obs, pool.segments.act)]
    chosen = choose("disagreement", count, len(pool), p2=model.chances(both[0], both[1]))
    assert chosen is not None  # as disagreement has a choice
    return pool.take(chosen[0])


def _fitted(told: Preferences, dataset: Dataset, seed: int) -> RewardModel:
    model = RewardModel(dataset.spec, Members((MODEL,), (seed,)))
    for _ in loops.offline(model, Source.of(None, told), UPDATES, every=UPDATES):
        pass
    return model


def add_session(store: Store) -> int:
    """Put another session of pairs if it is due; how many are new.

    Raises:
        InputError: the data set is not what it was.
    """
    about = store.about()
    if not is_due(store):
        return 0
    choice = Choice(**json.loads(about["choice"]))
    dataset = data.load(choice.dataset)
    if dataset.fingerprint != choice.fingerprint:
        raise InputError(f"{choice.dataset} is {dataset.fingerprint} now, expected {choice.fingerprint} as labelled")
    done = len(_originals(store))
    try:
        told = preferences(store, rows="mean", question=choice.question)
        told.check()
    except InputError:  # nobody has said anything yet, or ties alone
        told = None
    new = _put(store, choice, _session(choice, dataset, told, done), done, choice.total)
    if len(_originals(store)) >= choice.total:
        store.tell_about(more="")
    return new


def _originals(store: Store) -> list[str]:
    return [pair.id for pair in store.pairs("WHERE original IS NULL AND run = ''")]


def main(words: Sequence[str]) -> int:
    """Put another session of pairs into the database that is named, if it is due."""
    store = Store(Path(words[0]))
    try:
        add_session(store)
    except InputError as error:
        print(f"pbrl: no more pairs: {error}", file=sys.stderr)
        return 2
    finally:
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
