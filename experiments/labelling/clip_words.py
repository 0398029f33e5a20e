"""What happens in a clip, in one sentence: for those who cannot see it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_HEIGHT = {
    "Hopper-v5": 1,
    "Walker2d-v5": 1,
    "HalfCheetah-v5": 1,
    "Ant-v5": 2,
    "Humanoid-v5": 2,
    "HumanoidStandup-v5": 2,
}
_FLOOR = {"HalfCheetah-v5": 0.7}  # what the height of its body is counted from


def describe_body(task: str, pose: Array, obs: Array) -> str:
    """A segment of a MuJoCo task of ``clip_poses``: joint positions [T, nq], observations [T, O]."""
    if task == "Reacher-v5":
        away = np.hypot(obs[:, 8], obs[:, 9]) * 100.0
        near = f"comes as near as {away.min():.0f} cm and ends at {away[-1]:.0f} cm"
        return f"The finger starts {away[0]:.0f} cm from its target, {near}."
    if task == "Pusher-v5":
        away = np.linalg.norm(obs[:, 17:20] - obs[:, 20:23], axis=1) * 100.0
        return f"The object starts {away[0]:.0f} cm from its goal and ends {away[-1]:.0f} cm from it."
    if task in ("InvertedPendulum-v5", "InvertedDoublePendulum-v5"):
        lean = np.degrees(np.abs(pose[:, 1:].cumsum(axis=1))).max(axis=1)
        cart = f"from {pose[0, 0]:.2f} to {pose[-1, 0]:.2f} m"
        return f"The cart goes {cart}; the pole leans by up to {lean.max():.0f} degrees."
    far = pose[-1, 0] - pose[0, 0]
    words = f"The body moves {abs(far):.2f} m {'forwards' if far >= 0 else 'backwards'}"
    if task in ("Ant-v5", "Humanoid-v5", "HumanoidStandup-v5", "Swimmer-v5"):
        aside = pose[-1, 1] - pose[0, 1]
        words += f" and {abs(aside):.2f} m to the {'left' if aside >= 0 else 'right'}"
    if task in _HEIGHT:
        height = pose[:, _HEIGHT[task]] + _FLOOR.get(task, 0.0)
        words += f"; its height is {height[0]:.2f} m at first, between {height.min():.2f} and {height.max():.2f} m, "
        words += f"{height[-1]:.2f} m at last"
    return words + "."


def describe_picture(env: str, obs: Array) -> str:
    """A segment of a problem of ``clip_pictures``: observations [T, O]."""
    if re.fullmatch(r"PointMass(\d+D)?-v0|TwoObjectiveLQR-v0", env):
        place = obs if env.startswith("Two") else obs[:, : obs.shape[1] // 2]
        away = np.linalg.norm(place, axis=1)
        near = f"comes as near as {away.min():.2f} and ends at {away[-1]:.2f}"
        return f"The point starts {away[0]:.2f} from the goal, {near}."
    if env.startswith(("DeepSeaTreasure", "ResourceGathering")):
        cells = 11 if env.startswith("Deep") else 5
        way = [(int(row[:cells].argmax()) + 1, int(row[cells : 2 * cells].argmax()) + 1) for row in obs]
        words = (
            f"From row {way[0][0]}, column {way[0][1]} to row {way[-1][0]}, column {way[-1][1]} in {len(way) - 1} steps"
        )
        if env.startswith("Resource"):
            gold, gem = ("with" if obs[:, k].any() else "without" for k in (-2, -1))
            words += f", {gold} gold, {gem} the gem"
        return words + "."
    if env.startswith("FruitTree"):
        turns = ["left" if turn < 0 else "right" for turn in obs[-1] if turn]
        return f"Turns: {', '.join(turns) or 'none'}."
    changes: Any = [f"{a:.2g} to {b:.2g}" for a, b in zip(obs[0, :4], obs[-1, :4])]
    return f"The first numbers observed go from {', '.join(changes)}."
