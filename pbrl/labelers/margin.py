"""The moving margin of B-Pref's thresholds (Lee et al. 2021): what a member's segments have lately been worth."""

from __future__ import annotations

from ..data.buffer import Buffer

RECENT = 10
"""Episodes that the margin is a mean over."""


def recent_segment_return(buffer: Buffer, length: int, episodes: int = RECENT) -> list[float | None]:
    """[P] average true return of each member's last episodes x ``length`` / their average length; None without any.

    It is read off the buffer, hence the same after a restart. Episodes of which the buffer has lost the beginning do
    not count.
    """
    found: list[float | None] = []
    for member in range(buffer.members):
        last = buffer.episodes(member)[-episodes:]
        paid = sum(float(buffer.env_rew[member, rows].double().sum()) for rows in last)
        found.append(paid * length / sum(len(rows) for rows in last) if last else None)
    return found
