"""A claim of a paper as something that runs: its instance, its statistic, its bound, and a control that must fail.

A check measures a number with an interval and compares it to a bound:

    PASS          the whole interval keeps the bound
    FAIL          the whole interval breaks it
    INCONCLUSIVE  the interval holds the bound, or the control did not fail, so that the check has no power

Intervals are one-sided at 95 % at either end; of a deterministic number both ends are the number. PASS means that the
claim was not contradicted on these instances at this confidence, and never that it was proved.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from ..errors import InputError
from ..statistics import holm

T = TypeVar("T")
Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Size = Literal["smoke", "standard", "full"]
Provenance = Literal["paper", "derived", "practical"]
SIZES: tuple[Size, ...] = ("smoke", "standard", "full")


@dataclass(frozen=True)
class Trial:
    """How much a check may do, and with which randomness.

    Attributes:
        size: smoke takes about a second, standard up to some twenty, full minutes.
        seed: checks derive everything random from it.
    """

    size: Size = "smoke"
    seed: int = 0

    def pick(self, smoke: T, standard: T, full: T) -> T:
        """The value for this size."""
        return {"smoke": smoke, "standard": standard, "full": full}[self.size]


@dataclass(frozen=True)
class Measured:
    """What a statistic came to.

    Attributes:
        estimate: the number that the bound is about.
        low: it is at least this, with 95 % confidence.
        high: it is at most this, with 95 % confidence.
        breaks: (bound, whether it is a lower one) -> probability of an estimate that far beyond, were the true number
            at the bound: the p-value of a FAIL, for Holm's correction. None: the number is deterministic.
        note: what else was seen, in words.
    """

    estimate: float
    low: float
    high: float
    breaks: Callable[[float, bool], float] | None = None
    note: str = ""


Statistic = Callable[[Trial], Measured]


@dataclass(frozen=True)
class Control:
    """A broken variant, of which the same statistic must break the same bound.

    Attributes:
        what: what is broken, in a few words.
        statistic: measures the broken variant.
    """

    what: str
    statistic: Statistic


@dataclass(frozen=True)
class Check:
    """A claim that can be contradicted.

    Attributes:
        id: short and unique, such as SM1.
        paper: short title (authors, venue year).
        claim: what is claimed, in one sentence.
        setting: the instance: what is drawn, how large, how often.
        assumptions: what the claim needs and the instance has.
        bound: what the statistic is held against.
        bound_says: the bound in words or symbols, and where it comes from.
        provenance: paper: the bound is the paper's; derived: proved in the check's file or the dossier; practical: a
            tolerance or constant of our own.
        statistic: measures.
        control: what must fail.
        size: the smallest size at which the check runs in a suite.
        at_least: the bound is a lower one.
        figure: draws a PNG at a path and gives its caption.
        after_looking: what of the instance, its size or the bound was chosen or changed after outcomes had been seen.

    Raises:
        InputError: a field that is empty, an id that is not one word, or a bound that is not finite.
    """

    id: str
    paper: str
    claim: str
    setting: str
    assumptions: tuple[str, ...]
    bound: float
    bound_says: str
    provenance: Provenance
    statistic: Statistic
    control: Control
    size: Size = "smoke"
    at_least: bool = False
    figure: Callable[[Trial, Path], str] | None = None
    after_looking: str = ""

    def __post_init__(self) -> None:
        if not self.id or not self.id.replace("-", "").replace(".", "").isalnum():
            raise InputError(f"check id {self.id!r} is not one word of letters, digits, - and .")
        for name in ("paper", "claim", "setting", "bound_says"):
            if not getattr(self, name).strip():
                raise InputError(f"check {self.id} has no {name}")
        if not math.isfinite(self.bound):
            raise InputError(f"check {self.id} has bound {self.bound}, expected a finite number")

    def judge(self, measured: Measured) -> Verdict:
        """The verdict of an interval against the bound."""
        if self.at_least:
            return "PASS" if measured.low >= self.bound else "FAIL" if measured.high < self.bound else "INCONCLUSIVE"
        return "PASS" if measured.high <= self.bound else "FAIL" if measured.low > self.bound else "INCONCLUSIVE"

    def slack(self, measured: Measured) -> float:
        """How much of the bound was used; at most 1 keeps it.

        estimate / bound of an upper bound, bound / estimate of a lower one, and the other way round below 0.
        """
        negative = self.bound < 0.0 and measured.estimate < 0.0
        over, under = (measured.estimate, self.bound) if self.at_least == negative else (self.bound, measured.estimate)
        if under == 0.0:
            return 0.0 if over == 0.0 else math.inf
        return over / under


@dataclass(frozen=True)
class Result:
    """What running a check came to.

    Attributes:
        check: the check's id.
        paper: its paper.
        verdict: of the claim, after the control.
        control: the control's verdict; FAIL is what it should be.
        estimate: the statistic; NaN if it could not be measured.
        low: lower end of its interval.
        high: upper end.
        bound: what it was held against.
        slack: share of the bound that was used.
        seconds: that both statistics and the figure took, by the clock on the wall.
        cpu_seconds: that they kept a processor busy; what counts on a machine with other work.
        seed: that everything random came from.
        p_value: of a FAIL; None where the statistic is deterministic.
        control_estimate: the control's statistic.
        note: what else was seen.
        size: that it ran at.
        figure: where its figure lies.
        caption: what the figure shows.
    """

    check: str
    paper: str
    verdict: Verdict
    control: Verdict
    estimate: float
    low: float
    high: float
    bound: float
    slack: float
    seconds: float
    p_value: float | None
    control_estimate: float
    note: str
    size: Size
    figure: Path | None = None
    caption: str = ""
    cpu_seconds: float = 0.0
    seed: int = 0

    def row(self) -> dict[str, Any]:
        """What JSON gets; numbers that are not finite become None."""
        numbers = ("estimate", "bound", "slack", "seconds", "low", "high", "p_value", "control_estimate", "cpu_seconds")
        values: dict[str, Any] = {"id": self.check, "paper": self.paper, "verdict": self.verdict}
        values["control"] = self.control
        for name in numbers:
            number = getattr(self, name)
            values[name] = number if number is not None and math.isfinite(number) else None
        return {**values, "size": self.size, "seed": self.seed, "note": self.note, "caption": self.caption}

    @classmethod
    def of_row(cls, row: Mapping[str, Any], figure: Path | None) -> Result:
        """What ``row`` was made from; ``figure`` is where its figure would lie.

        Raises:
            KeyError: a name is missing.
        """
        values: dict[str, Any] = {name: row[name] for name in ("paper", "verdict", "control", "note", "size", "seed")}
        values |= {name: row[name] for name in ("caption", "seconds", "cpu_seconds", "p_value")}
        for name in ("bound", "slack", "estimate", "low", "high", "control_estimate"):
            values[name] = math.nan if row[name] is None else row[name]
        return cls(check=row["id"], figure=figure if row["caption"] else None, **values)


def execute(check: Check, trial: Trial, figures: Path | None = None) -> Result:
    """Run a check and its control; an error of either is a FAIL that names it.

    Args:
        check: what to run.
        trial: how much of it.
        figures: folder for its figure; None draws none.
    """
    began, busy = time.perf_counter(), time.process_time()
    try:
        measured = check.statistic(trial)
        if math.isnan(measured.estimate):
            raise ArithmeticError("the statistic is not a number")
        control = check.control.statistic(trial)
        verdict, broken, note = check.judge(measured), check.judge(control), measured.note
    except Exception as error:  # one check's error must not end the suite
        place = traceback.extract_tb(error.__traceback__)[-1]
        note = f"error: {type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})"
        nan = math.nan
        seconds = time.perf_counter() - began
        return Result(
            check.id, check.paper, "FAIL", "INCONCLUSIVE", nan, nan, nan, check.bound, nan, seconds, None, nan, note,
            trial.size, cpu_seconds=time.process_time() - busy, seed=trial.seed,
        )  # fmt: skip
    if verdict == "PASS" and broken != "FAIL":
        verdict, note = "INCONCLUSIVE", "; ".join(filter(None, [note, "no power: the control did not fail"]))
    path = figures / f"{check.id}.png" if figures is not None and check.figure is not None else None
    return Result(
        check=check.id,
        paper=check.paper,
        verdict=verdict,
        control=broken,
        estimate=measured.estimate,
        low=measured.low,
        high=measured.high,
        bound=check.bound,
        slack=check.slack(measured),
        p_value=None if measured.breaks is None else measured.breaks(check.bound, check.at_least),
        control_estimate=control.estimate,
        note=note,
        size=trial.size,
        figure=path,
        caption=check.figure(trial, path) if path is not None and check.figure is not None else "",
        seconds=time.perf_counter() - began,
        cpu_seconds=time.process_time() - busy,
        seed=trial.seed,
    )


def correct(results: Sequence[Result], level: float = 0.05) -> list[Result]:
    """The results of a suite after Holm's correction: a statistical FAIL that may be chance becomes INCONCLUSIVE."""
    chance = [result for result in results if result.p_value is not None]
    rejected = holm([float(result.p_value or 0.0) for result in chance], level)
    kept = {result.check for result, reject in zip(chance, rejected) if reject}
    corrected = []
    for result in results:
        if result.verdict == "FAIL" and result.p_value is not None and result.check not in kept:
            said = f"fails alone (p = {result.p_value:.2g}), not after Holm's correction over {len(chance)} checks"
            result = replace(result, verdict="INCONCLUSIVE", note="; ".join(filter(None, [result.note, said])))
        corrected.append(result)
    return corrected
