import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from pbrl.data import d4rl_reference, load_d4rl, normalized_score
from pbrl.data.reference_scores import D4RL
from pbrl.errors import InputError

from .data_cases import arrays, dataset

FIXTURES = Path(__file__).parent / "fixtures"
KEYS = {
    "obs": "observations",
    "act": "actions",
    "rew": "rewards",
    "term": "terminals",
    "trunc": "timeouts",
    "next_obs": "next_observations",
}


def write(path: Path, **changes: Any) -> Path:
    given = {key: changes.pop(key, arrays()[field]) for field, key in KEYS.items()} | changes
    with h5py.File(path, "w") as file:
        for key, value in given.items():
            if value is not None:
                file[key] = value
    return path


@pytest.mark.parametrize("case", range(6))
def test_compat_equals_what_d4rl_itself_computed(tmp_path: Path, case: int) -> None:
    with np.load(FIXTURES / "d4rl_qlearning.npz") as file:
        given = {key.rsplit("/", 1)[1]: file[key] for key in file.files if key.startswith(f"{case}/in/")}
        expected = {key.rsplit("/", 1)[1]: file[key] for key in file.files if key.startswith(f"{case}/out/")}
    assert ("timeouts" in given) == (case % 2 == 0)
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for key, value in given.items():
            file[key] = value
    data = load_d4rl(tmp_path / "x.hdf5", compat=True, horizon=7)
    assert expected.keys() == {key for key in KEYS.values() if key != "timeouts"}
    for field, key in KEYS.items():
        if key in expected:
            array = getattr(data, field).numpy()
            assert array.dtype == expected[key].dtype
            assert array.tobytes() == expected[key].tobytes(), key


def test_compat_by_hand(tmp_path: Path) -> None:
    """The four cases of d4rl's rule on one small file: 5 rows to a terminal, 3 to a timeout, 4 without an end."""
    path = write(tmp_path / "x.hdf5")
    given = arrays()
    data = load_d4rl(path, compat=True)
    kept = [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]  # the timeout row 7 and the last row 11 are dropped
    assert torch.equal(data.obs, torch.from_numpy(given["obs"])[kept])
    assert torch.equal(data.next_obs, torch.from_numpy(given["obs"])[[row + 1 for row in kept]])
    assert data.term.nonzero().squeeze(1).tolist() == [4]
    assert data.trunc.nonzero().squeeze(1).tolist() == [6]
    assert data.start.tolist() == [0, 5, 7]


@pytest.mark.parametrize(
    ("after", "horizon", "dropped"),
    [
        # Ten rows, one terminal at row 3. d4rl counts from 1 behind it, so that a limit of 4 falls on its third row.
        (3, 4, [3, 7]),  # the limit falls on the terminal row itself, and the count begins at 0
        (3, 5, [7]),
        (3, 6, [8]),
    ],
)
def test_compat_counts_steps_as_d4rl_does(tmp_path: Path, after: int, horizon: int, dropped: list[int]) -> None:
    obs = np.arange(20, dtype=np.float32).reshape(10, 2)
    term = np.arange(10) == after
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["observations"], file["actions"], file["rewards"], file["terminals"] = obs, obs * 0, np.ones(10), term
    data = load_d4rl(tmp_path / "x.hdf5", compat=True, horizon=horizon)
    kept = [row for row in range(9) if row not in dropped]
    assert (data.obs[:, 0] / 2).tolist() == kept


def test_by_default_stored_successors_and_time_limits_are_kept(tmp_path: Path) -> None:
    data = load_d4rl(write(tmp_path / "hopper_medium_expert-v2.hdf5"))
    for field, value in arrays().items():
        assert torch.equal(getattr(data, field), torch.from_numpy(value)), field
    assert (data.name, data.env) == ("hopper-medium-expert-v2", "Hopper-v4")
    assert data.info["reference"] == [-20.272305, 3234.3]
    assert data.info["horizon"] == 1000


def test_without_successors_rows_at_a_time_limit_are_dropped(tmp_path: Path) -> None:
    data = load_d4rl(write(tmp_path / "x.hdf5", next_observations=None))
    expected = dataset().obs[[0, 1, 2, 3, 4, 5, 6, 8, 9, 10]]
    assert torch.equal(data.obs, expected)
    assert data.trunc.nonzero().squeeze(1).tolist() == [6]


def test_without_timeouts_a_jump_between_rows_is_an_end(tmp_path: Path) -> None:
    data = load_d4rl(write(tmp_path / "x.hdf5", timeouts=None))
    assert data.start.tolist() == [0, 5, 8]
    assert data.trunc.nonzero().squeeze(1).tolist() == [7]
    assert data.info["timeouts_stored"] is False


def test_without_timeouts_and_successors_the_step_limit_is_an_end(tmp_path: Path) -> None:
    term = np.arange(12) == 4
    path = write(tmp_path / "x.hdf5", timeouts=None, next_observations=None, terminals=term)
    data = load_d4rl(path, horizon=3)
    # Ends at 2 (limit), 4 (terminal), 7 and 10 (limit, counted from 0); rows 2, 7, 10 and the last lack successors.
    assert torch.equal(data.obs, dataset().obs[[0, 1, 3, 4, 5, 6, 8, 9]])
    assert data.trunc.nonzero().squeeze(1).tolist() == [1, 5, 7]


def test_flags_and_rewards_of_old_files(tmp_path: Path) -> None:
    given = arrays()
    path = write(
        tmp_path / "x.hdf5",
        terminals=given["term"].astype(np.uint8)[:, None],
        timeouts=(given["trunc"] | given["term"]).astype(np.float32),  # a row with both flags is terminal
        rewards=given["rew"][:, None],
    )
    data = load_d4rl(path)
    assert data.fingerprint == dataset().fingerprint


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"rewards": None}, {}, "key 'rewards' is missing"),
        ({"terminals": np.full(12, 0.5)}, {}, "terminals is not one column of 0 and 1"),
        ({"terminals": np.zeros(11, bool)}, {}, "terminals has 11 rows, expected 12"),
        ({"next_observations": np.zeros((12, 2))}, {}, r"next_observations has shape \[12, 2\]"),
        ({"observations": np.zeros(12)}, {}, r"observations has shape \[12\], expected \[N, O\]"),
        ({"actions": np.full((12, 2), 3.0)}, {}, "act is 3 at row 0"),
        ({"rewards": np.zeros(12)}, {}, "rew is 0 in all 12 rows"),
        ({"timeouts": None}, {"compat": True}, "the step limit of 'x' is unknown, expected horizon=STEPS"),
        ({"timeouts": None, "next_observations": None}, {}, "the step limit of 'x' is unknown"),
        ({"timeouts": None}, {"compat": True, "horizon": 1}, "horizon is 1, expected at least 2"),
    ],
)
def test_refused(tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "x.hdf5", **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_d4rl(path, **options)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("name", "horizon", "env"),
    [
        ("halfcheetah_random-v2", 1000, "HalfCheetah-v4"),
        ("walker2d-medium-v0", 1000, "Walker2d-v4"),
        ("maze2d-umaze-v1", 300, ""),
        ("maze2d-large-v0", 600, ""),
        ("maze2d-medium-dense-v1", 600, ""),
        ("antmaze-umaze-diverse-v2", 700, ""),
        ("Ant_maze_big-maze_noisy", 1000, ""),
        ("pen-human-v1", 100, ""),
        ("kitchen-mixed-v0", 280, ""),
        ("pendulum-v1", None, ""),
    ],
)
def test_names_tell_step_limit_and_simulator(tmp_path: Path, name: str, horizon: int | None, env: str) -> None:
    data = load_d4rl(write(tmp_path / f"{name}.hdf5"))
    assert (data.spec.horizon, data.env) == (horizon, env)


@pytest.mark.parametrize(
    ("file", "horizon", "reference"),
    [
        ("maze2d-umaze-sparse-v1", 300, (23.85, 161.86)),
        ("maze2d-large-sparse-v1", 800, (6.7, 273.99)),
        ("maze2d-eval-medium-sparse-v1", 600, (13.07, 204.93)),
        ("maze2d-umaze-sparse", 150, (0.94, 62.6)),
        ("maze2d-medium-sparse", 250, (5.77, 85.14)),
        ("maze2d-open-sparse", 150, (0.01, 20.66)),
        ("maze2d-large-dense", 600, (27.38831, 215.09965671563742)),
        ("maze2d-large-dense-v1", 800, (30.569041, 303.4857382709002)),
        ("mini_kitchen_microwave_kettle_light_slider-v0", 280, (0.0, 4.0)),
        ("kitchen_microwave_kettle_bottomburner_light-v0", 280, (0.0, 4.0)),
        ("walker_mixed", 1000, (1.629008, 4592.3)),
        ("halfcheetah_medium_expert-v2", 1000, (-280.178953, 12135.0)),
        ("Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse", 700, (0.0, 1.0)),
        ("Ant_maze_hardest-maze_noisy_multistart_True_multigoal_False_sparse_fixed", 1000, (0.0, 1.0)),
        ("pen-v0_demos_clipped", 100, (96.262799, 3076.8331017826877)),
        ("hammer-demos-v0-bc-combined", 200, (-274.856578, 12794.134825156867)),
        ("minigrid4rooms_random", None, (0.01442, 2.89685)),
        ("carla_lane_follow_flat-v0", None, (-0.8503839912088142, 1023.5784385429523)),
        ("flow-ring-v0-idm", None, (-165.22, 24.42)),
        ("bullet-maze2d-umaze-sparse", None, (32.46, 153.99)),
        ("walkers", None, None),
        ("mine", None, None),
    ],
)
def test_names_of_d4rls_files(
    tmp_path: Path, file: str, horizon: int | None, reference: tuple[float, float] | None
) -> None:
    """As d4rl's table of downloads has them."""
    data = load_d4rl(write(tmp_path / f"{file}.hdf5"))
    assert (data.spec.horizon, data.info.get("reference")) == (horizon, reference and list(reference))


def test_reference_scores_are_those_of_d4rl() -> None:
    scores = json.loads((FIXTURES / "d4rl_reference_scores.json").read_text())
    assert len(scores) == 147
    for name, expected in scores.items():
        assert d4rl_reference(name) == tuple(expected), name


def test_the_table_of_reference_scores_has_not_changed() -> None:
    text = json.dumps(D4RL, sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "c01052388ac279c2"


@pytest.mark.parametrize(
    ("name", "reference", "returns", "score"),
    [
        ("hopper-medium-v2", None, 3234.3, 100.0),
        ("Hopper-v4", None, -20.272305, 0.0),
        ("halfcheetah", None, (12135.0 - 280.178953) / 2, 50.0),
        ("maze2d-umaze-v0", None, 0.94, 0.0),
        ("local/reacher/mixed-v1", [-50.0, -10.0], -20.0, 75.0),
        ("hopper-medium-v2", [0.0, 10.0], 1.0, 10.0),
    ],
)
def test_normalized_score(name: str, reference: list[float] | None, returns: float, score: float) -> None:
    assert normalized_score(name, returns, reference) == pytest.approx(score)
    many = normalized_score(name, np.array([[returns, returns]]), reference)
    np.testing.assert_allclose(many, [[score, score]], atol=1e-9)
    torch.testing.assert_close(
        normalized_score(name, torch.tensor([returns], dtype=torch.float64), reference),
        torch.tensor([score], dtype=torch.float64),
    )


@pytest.mark.parametrize(
    ("name", "reference", "message"),
    [
        ("Pendulum-v1", None, "no reference score for 'Pendulum-v1'"),
        ("local/hopper/medium-v1", None, "no reference score for 'local/hopper/medium-v1'"),
        ("maze2d-umaze", None, "no reference score for 'maze2d-umaze'"),
        ("x", [1.0, 1.0], r"x: the reference returns are \[1.0, 1.0\], expected \[min, max\]"),
        ("x", [1.0], r"x: the reference returns are \[1.0\], expected"),
    ],
)
def test_normalized_score_refuses(name: str, reference: list[float] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        normalized_score(name, 1.0, reference)
