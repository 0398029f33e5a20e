"""Several objectives from the command line: evaluation, fronts measured anew, and the policy for given weights."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import envs
from agents.multi_objective.c_morl import CMORL
from experiments import cli
from experiments.command_line.evaluate import policy_for
from experiments.command_line.front_options import CUSTOMARY
from experiments.command_line.restored import restore
from pbrl import pareto
from pbrl.errors import InputError
from pbrl.evaluation import evaluate
from pbrl.fronts import front as fronts
from pbrl.records.run import Run
from tests.test_resume import only_run

LQR = ["--env", "TwoObjectiveLQR-v0", "--env-steps", "1500", "--steps", "25", "--environments", "2", "--hidden", "4"]
TINY = [*LQR, "--batch-size", "50", "--epochs", "2", "--lr", "1e-2", "--init-log-std", "-1", "--threads", "1"]
MORL = ["c_morl", *TINY, "--policies", "3", "--init-updates", "4", "--extension-updates", "2", "--episodes", "2"]
CORNER = ["--reference-point", "-2000", "-2000"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, threads = tmp_path_factory.mktemp("front"), torch.get_num_threads()
    assert cli.main(["train", *MORL, *CORNER, "--seed", "0", "1", "--out", str(folder)]) == 0
    torch.set_num_threads(threads)
    return only_run(folder)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / trained.name))


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main([*words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_what_a_run_records_of_its_fronts(run: Path) -> None:
    """Metrics at each evaluation; front.csv holds the policies of the last one, from which they follow."""
    record = Run.open(run)
    steps, volumes = record.series("hypervolume")
    assert len(steps) == 10
    for member in (0, 1):
        rows = [row for row in lines(run / "front.csv") if row["member"] == str(member)]
        points = np.array([[float(row["return_0"]), float(row["return_1"])] for row in rows])
        assert [row["dominated"] == "0" for row in rows] == pareto.non_dominated(points).tolist()
        wanted = {
            "hypervolume": pareto.hypervolume(points, (-2000.0, -2000.0)),
            "expected_utility": pareto.expected_utility(points, pareto.simplex_grid(2, 100)),
            "sparsity": pareto.sparsity(points[pareto.non_dominated(points)]),
            "front_points": pareto.non_dominated(points).sum(),
        }
        for name, value in wanted.items():
            assert record.series(name)[1][member][-1] == pytest.approx(value), name
        vector = [record.series(f"return_{k}")[1][member][-1] for k in range(2)]
        assert record.series("return")[1][member][-1] == pytest.approx(np.mean(vector))
    assert volumes[0][-1] > 0
    assert record.config["identity"]["front"] == {"reference": [-2000.0, -2000.0], "gamma": 0.9, "policies": 20}
    assert (record.figures / "hypervolume.png").exists()


def test_points_of_a_front_are_what_each_policy_returns(run: Path) -> None:
    """Each one played alone, through ``serve`` and ``act``, gives its point; discounted where asked."""
    learner = restore(Run.open(run)).learner
    assert isinstance(learner, CMORL)

    def make(copies: int) -> envs.Made:
        return envs.make("TwoObjectiveLQR-v0", copies)

    front = fronts.play_front(learner, make, episodes=2, gamma=0.9)
    few = fronts.play_front(learner, make, episodes=2, gamma=0.9, most=1)
    for member, (rows, points) in enumerate(zip(front.rows, front.points)):
        used = learner.archive.used[member].nonzero().flatten().tolist()
        assert sorted(rows.tolist()) == used
        assert len(few.points[member]) == 1
        assert few.points[member][0] == pytest.approx(points[rows.tolist().index(int(few.rows[member][0]))])
        for row, point in zip(rows.tolist(), points):
            only = torch.zeros_like(learner.archive.used)
            only[:, 0] = True
            only[member] = torch.arange(only.shape[1]) == row
            kept = learner.archive.used.clone()
            learner.archive.used.copy_(only)
            scores = evaluate(learner, make, members=2, episodes=2, gamma=0.9)
            learner.archive.used.copy_(kept)
            np.testing.assert_allclose(scores.mean[member], point, rtol=1e-4)


def test_the_policy_for_given_weights(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the weights: the policy whose archived return is best by them, from the shell as from Python."""
    for weights in ((1.0, 0.0), (0.0, 1.0), (0.25, 0.75)):
        words = [f"{weight:g}" for weight in weights]
        assert cli.main(["evaluate", str(run), "--episodes", "2", "--weights", *words]) == 0
        assert "the policy for the weights" in capsys.readouterr().out
        rows = lines(run / f"evaluation-TwoObjectiveLQR-v0-greedy-{'-'.join(words)}.csv")
        assert list(rows[0]) == ["member", "episode", "return_0", "return_1", "length"]
        agent = policy_for(Run.open(run), weights)
        assert isinstance(agent, CMORL)
        scores = evaluate(agent, lambda copies: envs.make("TwoObjectiveLQR-v0", copies), members=2, episodes=2)
        found = [[float(row["return_0"]), float(row["return_1"])] for row in rows]
        np.testing.assert_array_equal(scores.returns.reshape(4, 2), found)
        for member in (0, 1):
            points = agent.archive.points[member][agent.archive.used[member]]
            best = points[int(pareto.assign(points.numpy(), weights))]
            row = agent.archive.assign(agent.weights)[member]
            assert torch.equal(agent.archive.points[member, row], best)


def test_the_front_from_the_command_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(run), "--front", "--episodes", "2"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "reference point -2000 -2000; discount 0.9" in out
    assert "doing nothing (action 0) returns -994.846 -994.846, hypervolume 1.01033e+06" in out
    everything = lines(run / "front-TwoObjectiveLQR-v0.csv")
    assert cli.main(["evaluate", str(run), "--front", "--episodes", "2", "--front-policies", "1"]) == 0
    assert len(lines(run / "front-TwoObjectiveLQR-v0.csv")) == 2 <= len(everything)
    assert cli.main(["evaluate", str(run), "--front", "--episodes", "1", "--front-gamma", "1"]) == 0
    assert "discount 1;" in capsys.readouterr().out
    undiscounted = lines(run / "front-TwoObjectiveLQR-v0.csv")
    assert float(undiscounted[0]["return_0"]) < float(everything[0]["return_0"]), "costs are not discounted away"


def test_ppo_is_scored_by_each_objective(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in TINY if word != "1500"]
    words.insert(words.index("--env-steps") + 1, "200")
    assert cli.main(["train", "ppo", *words, "--episodes", "2", "--out", str(tmp_path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "return weighed by 0.5 0.5" in out
    assert "the last return of each objective" in out
    folder = only_run(tmp_path)
    assert not (folder / "front.csv").exists()
    vectors = [Run.open(folder).series(f"return_{k}")[1][0][-1] for k in range(2)]
    assert Run.open(folder).series("return")[1][0][-1] == pytest.approx(np.mean(vectors))
    assert cli.main(["evaluate", str(folder), "--episodes", "2"]) == 0
    assert "weighed return" in capsys.readouterr().out
    for option in (["--weights", ".5", ".5"], ["--front"]):
        assert "ppo keeps no archive of policies" in said(capsys, "evaluate", str(folder), *option)
    with pytest.raises(InputError, match="keeps no archive"):
        policy_for(Run.open(folder), [0.5, 0.5])


def test_misuse_is_one_sentence(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [
        (["--weights", ".3", ".8"], "the preference weights are 0.3 0.8, expected none below 0 and a sum of 1"),
        (["--weights", "-.5", "1.5"], "the preference weights are -0.5 1.5"),
        (["--weights", "1"], "expected 2 in a row"),
        (["--weights", ".3", ".7", "--front"], "--weights and --front are both given"),
        (["--front", "--reference-point", "0", "0"], "no point dominates the reference point 0 0"),
        (["--front", "--reference-point", "0"], "reference_point has 1 number, expected 2"),
        (["--front", "--reference-point", "nan", "0"], "reference_point is nan 0, expected finite numbers"),
        (["--front", "--front-gamma", "2"], "front_gamma is 2"),
        (["--front", "--front-policies", "0"], "front_policies is 0"),
        (["--front", "--stochastic"], "--stochastic has no effect with --front"),
        (["--front-gamma", "1"], "--front-gamma has no effect without --front"),
        (["--env", "PointMass-v0"], "expected 2"),
    ]
    for words, expected in cases:
        assert expected in said(capsys, "evaluate", str(run), "--episodes", "1", *words)
    out = ["--out", str(tmp_path / "none")]
    training = [
        (["c_morl", *TINY, "--reference-point", "-1", *out], "reference_point has 1 number, expected 2"),
        (
            ["c_morl", *TINY, "--episodes", "0", *CORNER, *out],
            "--reference-point has no effect: there is no evaluation",
        ),
        (["ppo", *TINY, *CORNER, *out], "--reference-point has no effect: ppo keeps no archive"),
        (["c_morl", *TINY, "--front-policies", "0", *out], "front_policies is 0"),
        (["c_morl", "--env", "PointMass-v0", "--env-steps", "100", *out], "PointMass-v0 has one objective"),
        (["sac", "--env", "TwoObjectiveLQR-v0", "--env-steps", "100", *out], "sac learns from one reward"),
        (["spo", "--env", "TwoObjectiveLQR-v0", "--env-steps", "100", *out], "spo learns from one reward"),
    ]
    for words, expected in training:
        assert expected in said(capsys, "train", *words)
    assert not (tmp_path / "none").exists()


def test_customary_references_fit_their_problems() -> None:
    """Of our own problems: a number per objective, below what their best policies return."""
    for env, custom in CUSTOMARY.items():
        if env in envs.names():
            assert len(custom.reference) == envs.make(env, 1).spec.objectives, env
    assert len([env for env in CUSTOMARY if env in envs.names()]) >= 8


def test_grids_of_weights_stay_small() -> None:
    assert [fronts.weight_steps(k) for k in (2, 6)] == [100, 11]
    assert all(len(pareto.simplex_grid(k, fronts.weight_steps(k))) <= fronts.GRID for k in range(2, 10))


def test_stages_fit_into_the_rollouts_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The extension stage comes also in a run that is much shorter than the paper's 240 updates before it."""
    words = ["c_morl", *TINY, "--policies", "2", "--episodes", "1", *CORNER, "--out", str(tmp_path)]
    assert cli.main(["train", *words]) == 0
    said = " ".join(capsys.readouterr().err.split())
    run = Run.open(only_run(tmp_path))
    settings, saved = run.config["identity"]["settings"], run.saved()
    assert saved is not None
    assert settings["init_updates"] < saved.updates
    assert f"--init-updates {settings['init_updates']} (the paper's 240)" in said
    assert cli.main(["train", "--resume", str(run.folder)]) == 0
