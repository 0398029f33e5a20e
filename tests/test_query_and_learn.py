"""The loop of PEBBLE: members for themselves, resumed to the bit, blind to the true reward, and never waiting."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.off_policy.sac import SAC, SACConfig
from agents.preference.cpl import CPL, CPLConfig
from pbrl.agent import ForgetsCritic, Metrics
from pbrl.asking.queries import Query
from pbrl.asking.query_schedule import QuerySchedule
from pbrl.data.buffer import Buffer
from pbrl.data.source import Batch
from pbrl.errors import InputError
from pbrl.labelers.desk import Answer, AtOnce, Question
from pbrl.labelers.teachers import partial_return_labeler
from pbrl.loops import query_and_learn
from pbrl.members import sweep

from .asking_cases import BY_SIGHT, SCHEDULE, SMALL, SPEC, STEPS, Case, case, same

DOUBLE = torch.float64


class Drawer:
    """A desk with a drawer: a person answers some questions when ``answer`` is called, and remembers all of them."""

    def __init__(self, keys: Tensor) -> None:
        self.inner = AtOnce(BY_SIGHT, keys)
        self.asked: list[Question] = []
        self.told: list[Answer] = []

    def ask(self, questions: Sequence[Question]) -> None:
        known = {question.name for question in self.asked}
        self.asked += [question for question in questions if question.name not in known]

    def answers(self) -> Sequence[Answer]:
        told, self.told = self.told, []
        return told

    def answer(self, questions: Sequence[Question], label: float | None = -1.0) -> None:
        """By sight, or all alike."""
        self.inner.ask(questions)
        answers = self.inner.answers()
        self.told += answers if label == -1.0 else [Answer(each.name, label) for each in answers]


@cache
def plain(env_steps: int = STEPS) -> Case:
    """The run that others are compared with."""
    run = case()
    run.run(env_steps)
    return run


# --- the phases -------------------------------------------------------------------------------------------------------


def test_questions_are_asked_when_the_schedule_says_up_to_the_budget() -> None:
    run = case()
    answered = [metrics["answered"].tolist() for metrics in run.run()]
    # Sessions after 21, 31 and 41 steps ask 4, 4 and 1.
    assert answered == [[0, 0], [0, 0], [4, 4], [8, 8], [9, 9], [9, 9]]
    assert run.interview.questions.asked.tolist() == [9, 9]
    assert run.learner.agent.updates == STEPS - SCHEDULE.random_steps + SCHEDULE.reset_updates


def test_every_member_asks_about_its_own_past() -> None:
    run = plain()
    buffer, questions = run.collector.buffer, run.interview.questions
    for member in range(2):
        stored = torch.cat([buffer.obs[member], buffer.act[member]], dim=1)
        seen = torch.cat([questions.obs[member], questions.act[member]], dim=-1)  # [9, 2, T, .]
        for segment in seen.flatten(0, 1):
            starts = (stored == segment[0]).all(1).nonzero().flatten().tolist()
            assert any(torch.equal(stored[start : start + 4], segment) for start in starts)
            assert all(start % 10 <= 6 for start in starts), "a segment crosses the end of an episode"
    assert not torch.equal(questions.obs[0], questions.obs[1])


def test_labels_follow_the_contents() -> None:
    questions = plain().interview.questions
    score = -(questions.act.double() - 0.5).square().sum((-1, -2)) + 0.1 * questions.obs.double()[..., 0].sum(-1)
    assert torch.equal(questions.label, (score[..., 1] > score[..., 0]).float())


@pytest.mark.parametrize(("capacity", "streams"), [(1000, 1), (24, 2), (24, 1)])
def test_all_that_is_stored_has_the_learned_reward(capacity: int, streams: int) -> None:
    """At every index, also after the ring has wrapped (24 steps hold the last two episodes)."""
    schedule = dataclasses.replace(SCHEDULE, random_steps=20, query_every=20, max_queries=100)
    run = case(schedule=schedule, capacity=capacity, streams=streams)
    run.run(59)  # the last session was after 49 steps
    buffer = run.collector.buffer
    assert len(buffer) == min(capacity, -(-59 // streams) * streams)
    expected = run.learner.model.reward(buffer.obs, buffer.act)
    torch.testing.assert_close(buffer.rew, expected, rtol=1e-5, atol=1e-6)
    assert float(buffer.rew.std()) > 1e-4


def test_before_the_first_answers_the_reward_is_novelty_and_afterwards_it_is_learned() -> None:
    rewards: list[Tensor] = []

    class Notes(SAC):
        def update(self, batch: Batch) -> Metrics:
            rewards.append(batch["transitions"].rew)
            return super().update(batch)

    run = case()
    agent = Notes(SPEC, sweep(SMALL, [0, 1]))
    list(query_and_learn(run.learner.model, agent, run.desk, run.collector, run.interview, 40, every=10))
    learned = run.collector.buffer.rew
    for number, batch in enumerate(rewards):
        from_buffer = [torch.isin(batch[member], learned[member]).all() for member in range(2)]
        early = number < 8  # updates begin after 12 steps, the first session is after 21
        assert not any(from_buffer) if early else True
    assert all(torch.isin(rewards[-1][member], learned[member]).all() for member in range(2))
    assert run.interview.scale.count.tolist() == [8 * 6, 8 * 6]
    assert not isinstance(agent, ForgetsCritic)  # any agent will do


def test_the_critic_begins_afresh_at_the_first_session_and_only_then() -> None:
    run = case(schedule=dataclasses.replace(SCHEDULE, reset_updates=0, updates_per_step=0.0))
    fresh = [p.detach().clone() for p in run.learner.agent.q.parameters()]
    with torch.no_grad():
        for p in (*run.learner.agent.q.parameters(), *run.learner.agent.target.parameters()):
            p.add_(1.0)
    actor = [p.detach().clone() for p in run.learner.agent.policy.parameters()]
    run.run(20)
    assert not torch.equal(next(run.learner.agent.q.parameters()), fresh[0])
    run.run(21)
    assert same(list(run.learner.agent.q.parameters()), fresh)
    assert same(list(run.learner.agent.target.parameters()), fresh)
    assert same(list(run.learner.agent.policy.parameters()), actor)
    with torch.no_grad():
        next(run.learner.agent.q.parameters()).add_(1.0)
    run.run(41)
    assert not torch.equal(next(run.learner.agent.q.parameters()), fresh[0])


# --- what every loop promises -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["disagreement", "k_centre_entropy"])
def test_a_member_of_a_stack_is_as_it_is_alone(query: Query) -> None:
    """Also where members stop fitting at different times."""
    schedule = dataclasses.replace(SCHEDULE, query=query, fit_accuracy=0.85, fit_updates=25)
    stack = sweep(SMALL, range(3), dtype=DOUBLE)
    together = case(stack, schedule=schedule)
    history = together.run()
    taken = torch.stack([metrics["reward_updates"] for metrics in history if "reward_updates" in metrics])
    assert (taken != taken[:, :1]).any(), "this test wants members that stop at different times"
    for member in (0, 2):
        single = case(stack.take([member]), schedule=schedule)
        lone_history = single.run()
        for a, b in zip(together.weights(member), single.weights(0), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        for ours, lone in zip(history, lone_history, strict=True):
            for name in lone:
                torch.testing.assert_close(ours[name][member], lone[name][0], rtol=1e-9, atol=1e-9, equal_nan=True)


def test_same_settings_same_bits_and_another_seed_other_ones() -> None:
    again = case()
    again.run()
    assert same(plain().weights(0), again.weights(0))
    assert not same(again.weights(0), again.weights(1))


def test_it_goes_on_with_the_same_bits() -> None:
    """Stopped while it explores at random, by novelty, after the first session, and after the last."""
    run = case()
    for stop in (10, 20, 30, 50, STEPS):
        run.run(stop)
        states, run = run.states(), case()
        run.restore(states)
    assert same(plain().weights(1), run.weights(1))
    assert torch.equal(plain().interview.questions.label, run.interview.questions.label)


KNOB_STEPS = 45
KNOBS: dict[str, Any] = {
    "query": "k_centre",
    "segment_length": 5,
    "max_queries": 7,
    "session_queries": 3,
    "query_every": 9,
    "candidates": 5,
    "recent_episodes": 1,
    "random_steps": 14,
    "unsupervised_steps": 12,
    "neighbours": 3,
    "fit_updates": 3,
    "fit_accuracy": 0.3,
    "reset_updates": 3,
    "updates_per_step": 0.5,
}


def test_every_knob_is_listed_above() -> None:
    assert KNOBS.keys() == {field.name for field in dataclasses.fields(QuerySchedule)}


@pytest.mark.parametrize("name", KNOBS)
def test_every_knob_of_the_schedule_changes_something(name: str) -> None:
    other = case(schedule=dataclasses.replace(SCHEDULE, **{name: KNOBS[name]}))
    other.run(KNOB_STEPS)
    assert not same(plain(KNOB_STEPS).weights(0), other.weights(0))


# --- the true reward --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rewards", [{"factor": -3.0}, {"constant": 1e6}])
def test_what_the_environment_pays_reaches_no_learner(rewards: dict[str, Any]) -> None:
    """The labeler judges by sight; whatever the environment pays, the learners end with the same bits."""
    honest, other = plain(), case(**rewards)
    garbage = other.run()
    assert same(honest.weights(0), other.weights(0))
    assert not torch.equal(honest.collector.buffer.env_rew, other.collector.buffer.env_rew)
    paid = honest.collector.buffer.env_rew[:, -10:].sum(1)
    assert garbage[-1]["episode_return"].tolist() != paid.tolist(), "but the report sees it"


def test_and_a_teacher_may_go_by_it() -> None:
    """So the test above can fail: a labeler that looks at the rewards is told something else."""
    honest, other = case(labeler=partial_return_labeler()), case(labeler=partial_return_labeler(), factor=-1.0)
    honest.run(KNOB_STEPS)
    other.run(KNOB_STEPS)
    assert not same(honest.weights(0), other.weights(0))
    assert same(honest.weights(0), plain(KNOB_STEPS).weights(0))


def test_no_batch_ever_holds_the_environments_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the learners draw from never holds it: all that it pays is 1000."""
    seen: list[float] = []
    draw = Buffer.draw

    def watched(self: Buffer, *args: Any) -> Batch:
        batch = draw(self, *args)
        seen.append(float(batch["transitions"].rew.abs().max()))
        return batch

    monkeypatch.setattr(Buffer, "draw", watched)
    case(constant=1000.0).run(KNOB_STEPS)
    assert seen
    assert max(seen) <= 1.0  # a tanh's


# --- answers that come late, or never ---------------------------------------------------------------------------------


def test_a_teacher_who_skips_everything_stops_nothing() -> None:
    run = case(labeler=partial_return_labeler(skip=float("inf"), margin=1.0))
    last = run.run()[-1]
    assert last["answered"].tolist() == [0, 0]
    assert last["skipped"].tolist() == [16, 16]  # sessions after 21, 31, 41 and 51 steps
    assert "reward_accuracy" not in last
    assert all(w.isfinite().all() for w in run.weights(0))


def test_nothing_but_ties_is_learned_as_ties() -> None:
    run = case(labeler=partial_return_labeler(equal=float("inf"), margin=1.0, mistake=1.0))
    history = run.run()
    assert (run.interview.questions.label == 0.5).all()
    fitted = [metrics for metrics in history if "reward_updates" in metrics]
    assert fitted[-1]["reward_updates"].tolist() == [15, 15], "ties are no reason to stop"
    assert fitted[-1]["reward_accuracy"].isnan().all()


def test_nobody_waits_for_answers() -> None:
    run = case()
    desk = run.desk = Drawer(run.learner.keys)
    model = [p.detach().clone() for p in run.learner.model.parameters()]
    history = run.run(35)
    assert history[-1]["waiting"].tolist() == [4, 4], "a session asks for fewer by those that still wait"
    assert len(desk.asked) == 8
    assert same(list(run.learner.model.parameters()), model), "there is nothing to learn from yet"
    assert run.learner.agent.updates == 35 - 12 + 2, "the agent learns on"
    # One member is answered: it goes by the learned reward, the other still by novelty.
    desk.answer([question for question in desk.asked if question.member == 1])
    count = run.interview.scale.count.clone()
    history = run.run(45)
    assert history[-1]["answered"].tolist() == [0, 4]
    assert history[-1]["waiting"].tolist() == [4, 4]
    assert (run.interview.scale.count > count).all()
    assert [question.member for question in desk.asked] == [0] * 4 + [1] * 8
    fit = [not torch.equal(p[0], old[0]) for p, old in zip(run.learner.model.net.parameters(), model)]
    assert not any(fit), "no answer, no fit"


def test_late_answers_are_as_good_as_early_ones_and_doubles_are_ignored() -> None:
    run = case()
    desk = run.desk = Drawer(run.learner.keys)
    run.run(25)
    desk.answer(desk.asked)
    desk.answer(desk.asked, label=0.5)  # somebody presses a key twice
    desk.told.append(Answer(12345, 1.0))  # and nobody asked this
    run.run(35)
    prompt = case()
    prompt.run(25)
    questions = run.interview.questions
    assert torch.equal(questions.label[:, :4], prompt.interview.questions.label[:, :4])
    assert questions.answered.tolist() == [4, 4]


def test_questions_survive_a_restart_of_either_side() -> None:
    run = case()
    before = run.desk = Drawer(run.learner.keys)
    run.run(30)
    other = case()
    after = other.desk = Drawer(other.learner.keys)
    other.restore(run.states())
    other.run(31)  # the desk is a new one: what waits is put again, by the same names and with the same contents
    assert {q.name for q in before.asked} <= {q.name for q in after.asked}
    for old, new in zip(before.asked, after.asked):
        assert (old.name, old.member, old.number) == (new.name, new.member, new.number)
        assert torch.equal(old.pair.segments.obs, new.pair.segments.obs)
    before.answer(before.asked)
    after.told += before.told
    other.run(41)
    assert other.interview.questions.answered.tolist() == [4, 4]


def test_skips_make_room_again_in_the_budget() -> None:
    run = case(schedule=dataclasses.replace(SCHEDULE, max_queries=4))
    desk = run.desk = Drawer(run.learner.keys)
    run.run(25)
    desk.answer(desk.asked[:2], label=None)
    desk.answer(desk.asked[2:])
    run.run(32)
    questions = run.interview.questions
    assert questions.skipped.tolist() == [2, 0]
    run.run(42)
    assert questions.asked.tolist() == [6, 4]
    assert questions.waiting.tolist() == [2, 0]


# --- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segment_length": 11}, "segment_length is 11, expected at most an episode's 10 steps"),
        ({"random_steps": 3, "unsupervised_steps": 6}, "9 random and unsupervised steps .* expected at least 10"),
        ({"query": "best"}, "query is 'best', expected one of uniform"),
        ({"session_queries": 0}, "session_queries is 0, expected at least 1"),
        ({"fit_accuracy": 0.0}, "fit_accuracy is 0"),
        ({"updates_per_step": -1.0}, "updates_per_step is -1"),
        ({"reset_updates": -1}, "reset_updates is -1, expected at least 0"),
    ],
)
def test_schedules_that_cannot_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        case(schedule=dataclasses.replace(SCHEDULE, **changes)).run()


def test_learners_that_do_not_fit() -> None:
    run = case()
    cpl = CPL(SPEC, sweep(CPLConfig(hidden=(8,)), [0, 1]))
    sac: Any = SAC(SPEC, sweep(SACConfig(hidden=(8,)), [0, 1]))
    parts = run.desk, run.collector, run.interview
    with pytest.raises(InputError, match="CPL learns from pairs"):
        next(query_and_learn(run.learner.model, cpl, *parts, 10, every=1))
    with pytest.raises(InputError, match="SAC learns from transitions"):
        next(query_and_learn(sac, sac, *parts, 10, every=1))
    with pytest.raises(InputError, match="every is 0"):
        run.run(10, every=0)


def test_questions_that_go_by_predictions_need_somebody_who_predicts() -> None:
    run = case()

    class Plain:
        """A reward learner and no committee."""

        keys, updates = run.learner.keys, 0
        wants, update, reward = run.learner.model.wants, run.learner.model.update, run.learner.model.reward
        state_dict, load_state_dict = run.learner.model.state_dict, run.learner.model.load_state_dict

    with pytest.raises(InputError, match="query 'disagreement' goes by the predictions of a committee, but Plain"):
        next(query_and_learn(Plain(), run.learner.agent, run.desk, run.collector, run.interview, 10, every=1))
