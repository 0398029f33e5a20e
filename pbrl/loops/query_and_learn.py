"""The loop of PEBBLE (Lee, Smith & Abbeel, ICML 2021): explore, ask, fit the reward, relabel, learn from it, ask again.

    interview = Interview(env.spec, P, QuerySchedule(max_queries=100, session_queries=20, query_every=2000))
    collector = Collector(env, Buffer(env.spec, P, 100_000), agent.keys)
    desk = AtOnce(partial_return_labeler(), agent.keys)
    for metrics in query_and_learn(reward_learner, agent, desk, collector, interview, 50_000, every=1000):
        ...                       # record, evaluate, save the states of both learners, the buffer and the interview

Each member asks about segments of its own, and learns from its own answers:

1. random actions for ``random_steps`` steps;
2. state entropy as the reward (``pbrl.asking.state_entropy``) for ``unsupervised_steps``;
3. the first session: questions at random; the reward learner is fitted to the answers, the whole buffer gets its
   rewards, the agent's critic is reset and catches up for ``reset_updates`` updates;
4. the agent goes on with learned rewards; every ``query_every`` steps there is another session, until ``max_queries``
   questions are answered.

What the environment pays goes to the desk (whose labeler may go by it) and into ``episode_return``, and nowhere else.

Nobody waits for answers. A session asks, takes the answers that have come since the last one, and the loop goes on; a
member that has none yet keeps on exploring by state entropy. A session asks for fewer questions by those that still
wait. Skipped questions do not count. When the loop begins again after a restart, it puts the waiting questions again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from hashlib import blake2b

import torch
from torch import Tensor

from .. import rng
from ..agent import Agent, Committee, ForgetsCritic, RewardLearner
from ..asking.queries import candidates, choose
from ..asking.query_schedule import Interview
from ..asking.state_entropy import state_entropy
from ..data.buffer import CollectedWindows
from ..data.preferences import Pairs
from ..data.questions import FREE, WAITING, Questions
from ..data.segments import Segments
from ..data.source import Transitions
from ..errors import InputError
from ..labelers.desk import Desk, Question
from ..labelers.margin import recent_segment_return
from ..play.collector import Collector
from .fit_reward import check_fits, fit_reward
from .online import check_online

_PAIRS = 64  # candidates that are judged at once


def query_and_learn(
    reward_learner: RewardLearner,
    agent: Agent,
    desk: Desk,
    collector: Collector,
    interview: Interview,
    env_steps: int,
    *,
    every: int,
) -> Iterator[dict[str, Tensor]]:
    """Collect, ask and learn until each member has taken ``env_steps`` steps in all.

    Yields whenever another ``every`` steps of each member are complete (and after the last) metrics: {name: [P]}. Those
    of the agent are means over its updates; ``episode_return`` is the mean over the episodes that ended of what the
    environment paid (NaN without one); ``answered``, ``waiting`` and ``skipped`` count questions; ``reward_accuracy``
    and ``reward_updates`` are those of the last session.

    It goes on with the same bits where it stopped at a yield, with learners, buffer and interview restored.

    Args:
        reward_learner: one that learns from labelled pairs; where questions go by its predictions, a ``Committee``.
        agent: one that learns from transitions. Its critic is reset if it can (``ForgetsCritic``).
        desk: where questions go and answers come from.
        collector: the environments and the buffer.
        interview: the schedule, and what was asked so far.
        env_steps: of each member, over all its environments.
        every: steps of each member between yields.

    Raises:
        InputError: learners that learn from something else, a reward learner without the predictions that questions go
            by, segments longer than an episode, or too few steps before the first session for a whole episode.
    """
    if every < 1:
        raise InputError(f"every is {every}, expected at least 1")
    _check(reward_learner, agent, collector, interview)
    buffer, keys, schedule, questions = collector.buffer, agent.keys, interview.schedule, interview.questions
    exploring, asking = rng.fold(keys, "exploration"), rng.fold(keys, "session")
    desk.ask(_waiting(questions, buffer.spec.name))
    informed = questions.answered > 0
    everyone = bool(informed.all())
    seen: dict[str, list[Tensor]] = {}
    fitted: dict[str, Tensor] = {}
    total, count = (torch.zeros(buffer.members, dtype=torch.float64) for _ in range(2))

    def learn(updates: int) -> None:
        for _ in range(updates):
            batch = buffer.draw(agent.wants(), keys, agent.updates)["transitions"]
            if not everyone:
                batch = _exploring(batch, buffer.obs, interview, informed)
            for name, value in agent.update({"transitions": batch}).items():
                seen.setdefault(name, []).append(value)

    while buffer.env_steps < env_steps:
        before = buffer.env_steps
        key = rng.fold(exploring, before)
        if before < schedule.random_steps:
            act = 2.0 * rng.uniform(key, buffer.streams, buffer.spec.act_size, dtype=buffer.dtype) - 1.0
        else:
            act = agent.act(collector.obs, key)
        steps = collector.step(act, reward=reward_learner.reward)
        if bool(steps.end.any()):
            end = steps.end.cpu()
            total += torch.where(end, steps.returns, 0.0).sum(1)
            count += end.sum(1)
        now = buffer.env_steps
        if schedule.sessions(now) > schedule.sessions(before):
            first = schedule.sessions(before) == 0
            key = rng.fold(asking, schedule.sessions(now))
            fresh = _told(questions, desk)
            desk.ask(_questions(reward_learner, collector, interview, key, first=first))
            fresh |= _told(questions, desk)
            if bool(fresh.any()):
                fitting, most = rng.fold(key, "fit"), schedule.fit_updates
                fitted = dict(
                    fit_reward(reward_learner, questions, fresh, fitting, updates=most, accuracy=schedule.fit_accuracy)
                )
                buffer.relabel(reward_learner.reward)
                informed = questions.answered > 0
                everyone = bool(informed.all())
            if first and isinstance(agent, ForgetsCritic):
                agent.forget_critic()
                learn(schedule.reset_updates)
        learn(schedule.updates(now) - schedule.updates(before))
        if now // every > before // every or now >= env_steps:
            metrics = {name: torch.stack(values).nanmean(0) for name, values in seen.items()}
            counts = {name: getattr(questions, name).to(buffer.dtype) for name in ("answered", "waiting", "skipped")}
            yield {**metrics, **counts, **fitted, "episode_return": total / count}
            seen, fitted, total, count = {}, {}, torch.zeros_like(total), torch.zeros_like(count)


def _told(questions: Questions, desk: Desk) -> Tensor:
    """[P] bool, which members have new answers."""
    return questions.tell((answer.name, answer.label) for answer in desk.answers())


def _check(reward_learner: RewardLearner, agent: Agent, collector: Collector, interview: Interview) -> None:
    schedule, buffer = interview.schedule, collector.buffer
    check_online(agent, collector)
    check_fits(reward_learner)
    if schedule.query not in ("uniform", "k_centre") and not isinstance(reward_learner, Committee):
        name = type(reward_learner).__name__
        raise InputError(f"query {schedule.query!r} goes by the predictions of a committee, but {name} has none")
    horizon = collector.env.spec.horizon
    assert horizon is not None  # the collector sees to it
    if schedule.segment_length > horizon:
        raise InputError(f"segment_length is {schedule.segment_length}, expected at most an episode's {horizon} steps")
    before = schedule.random_steps + schedule.unsupervised_steps
    if before < horizon * buffer.streams:
        raise InputError(
            f"{before} random and unsupervised steps come before the first question, expected at least "
            f"{horizon * buffer.streams}: a whole episode in each of {buffer.streams} environments"
        )


def _exploring(batch: Transitions, states: Tensor, interview: Interview, informed: Tensor) -> Transitions:
    """The batch with state entropy as the reward of members that are not ``informed`` [P]."""
    novelty = interview.scale(state_entropy(batch.obs, states, interview.schedule.neighbours))
    return dataclasses.replace(batch, rew=torch.where(informed[:, None], batch.rew, novelty))


def _questions(
    reward_learner: RewardLearner, collector: Collector, interview: Interview, key: Tensor, *, first: bool
) -> list[Question]:
    """The questions of a session, noted as waiting."""
    buffer, schedule, questions = collector.buffer, interview.schedule, interview.questions
    length, recent = schedule.segment_length, schedule.recent_episodes
    able = buffer.places(length, recent=recent) > 1
    count = torch.where(able, (schedule.session_queries - questions.waiting).minimum(questions.room), 0).clamp_min(0)
    if not bool((count > 0).any()):
        return []
    query = "uniform" if first else schedule.query
    size = candidates(query, schedule.session_queries, schedule.candidates)
    drawn = buffer.windows(key, 2 * size, length, recent=recent, everyone=False, apart=True)
    obs, act = (x.unflatten(1, (size, 2)) for x in (drawn.obs, drawn.act))  # [P, n, 2, T, .]
    p2 = None
    if isinstance(reward_learner, Committee) and query not in ("uniform", "k_centre"):
        parts = zip(obs.split(_PAIRS, 1), act.split(_PAIRS, 1))
        p2 = torch.cat([reward_learner.chances(*part) for part in parts], dim=-1)
    used = (questions.state != FREE).any(0).nonzero()
    asked = int(used.max()) + 1 if len(used) else 0
    chosen = choose(
        query,
        schedule.session_queries,
        size,
        p2=p2,
        points=obs.flatten(2),
        asked=questions.obs[:, :asked].flatten(2),
        known=questions.state[:, :asked] != FREE,
    )
    new = []
    margin = recent_segment_return(buffer, length)
    for member, many in enumerate(count.tolist()):
        place = torch.arange(many, device=obs.device) if chosen is None else chosen[member, :many]
        put = _put(questions, drawn, member, place, buffer.spec.name)
        new += [dataclasses.replace(question, margin=margin[member]) for question in put]
    return new


def _put(questions: Questions, drawn: CollectedWindows, member: int, place: Tensor, source: str) -> list[Question]:
    """Questions about the candidates ``place`` [n] of a member: windows 2 i and 2 i + 1."""
    chosen = torch.stack([2 * place, 2 * place + 1], dim=1)  # [n, 2]
    obs, act, rew = (each[member, chosen].cpu() for each in (drawn.obs, drawn.act, drawn.rew))
    last_obs, term, row = (each[member, chosen].cpu() for each in (drawn.last_obs, drawn.term, drawn.row))
    asked = int(questions.asked[member])
    new = []
    for i in range(len(place)):
        segments = Segments(obs[i], act[i], rew[i], last_obs[i], term[i] > 0, row[i], source, "")
        new.append(_question(segments, member, asked + i))
    questions.put(member, drawn.obs[member, chosen], drawn.act[member, chosen], [question.name for question in new])
    return new


def _question(segments: Segments, member: int, number: int) -> Question:
    content = blake2b(f"{member} {number}".encode(), digest_size=6)
    for tensor in (segments.obs, segments.act):
        content.update(tensor.contiguous().numpy().tobytes())
    pair = Pairs(segments, torch.tensor([0]), torch.tensor([1]))
    return Question(int.from_bytes(content.digest(), "big"), member, number, pair)


def _waiting(questions: Questions, source: str) -> list[Question]:
    """The questions that wait, as they were put, less what the learners' side does not keep."""
    found = []
    for member, slot in (questions.state == WAITING).nonzero().tolist():
        obs, act = questions.obs[member, slot].cpu(), questions.act[member, slot].cpu()
        segments = Segments(obs, act, None, None, None, torch.tensor([-1, -1]), source, "")
        found.append(_question(segments, member, int(questions.number[member, slot])))
    return found
