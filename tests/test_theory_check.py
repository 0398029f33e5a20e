"""Checks: verdicts from intervals, controls, Holm over the suite, and the command line around them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import checks, cli, suite
from pbrl.errors import InputError
from pbrl.statistics import clopper_pearson, holm
from pbrl.theory import measures
from pbrl.theory.check import Check, Control, Measured, Result, Trial, Verdict, correct, execute

CHECK = Check(
    id="T1",
    paper="a paper",
    claim="a claim",
    setting="a setting",
    assumptions=(),
    bound=1.0,
    bound_says="by hand",
    provenance="practical",
    statistic=lambda trial: measures.exactly(trial.pick(0.5, 0.6, 0.7)),
    control=Control("broken", lambda trial: measures.exactly(2.0)),
)


@pytest.mark.parametrize(
    ("low", "high", "at_least", "verdict"),
    [
        (0.2, 1.0, False, "PASS"),
        (0.2, 1.1, False, "INCONCLUSIVE"),
        (1.1, 1.2, False, "FAIL"),
        (1.0, 1.2, True, "PASS"),
        (0.9, 1.2, True, "INCONCLUSIVE"),
        (0.2, 0.9, True, "FAIL"),
    ],
)
def test_verdicts(low: float, high: float, at_least: bool, verdict: Verdict) -> None:
    check = replace(CHECK, at_least=at_least)
    assert check.judge(Measured((low + high) / 2, low, high)) == verdict


def test_a_control_that_does_not_fail_takes_the_verdict_away() -> None:
    good = execute(CHECK, Trial())
    assert (good.verdict, good.control, good.estimate, good.slack) == ("PASS", "FAIL", 0.5, 0.5)
    weak = execute(replace(CHECK, control=Control("not broken", lambda trial: measures.exactly(0.9))), Trial())
    assert (weak.verdict, weak.control) == ("INCONCLUSIVE", "PASS")
    assert "no power" in weak.note
    bad = execute(replace(CHECK, statistic=lambda trial: measures.exactly(1.5)), Trial())
    assert bad.verdict == "FAIL"
    assert execute(CHECK, Trial("full")).estimate == 0.7


def test_an_error_or_nan_is_a_failure_that_is_told() -> None:
    def breaks(trial: Trial) -> Measured:
        raise ZeroDivisionError("by zero")

    result = execute(replace(CHECK, statistic=breaks), Trial())
    assert (result.verdict, result.control) == ("FAIL", "INCONCLUSIVE")
    assert "ZeroDivisionError: by zero (test_theory_check.py" in result.note
    result = execute(replace(CHECK, statistic=lambda trial: measures.exactly(math.nan)), Trial())
    assert result.verdict == "FAIL"
    assert json.dumps(result.row(), allow_nan=False)


def test_lower_bounds_have_slack_the_other_way() -> None:
    check = replace(CHECK, bound=2.0, at_least=True)
    assert check.slack(Measured(4.0, 4.0, 4.0)) == 0.5
    assert check.slack(Measured(0.0, 0.0, 0.0)) == math.inf
    assert replace(CHECK, bound=-2.0, at_least=True).slack(Measured(-1.5, -1.5, -1.5)) == 0.75
    assert replace(CHECK, bound=-0.4).slack(Measured(-0.5, -0.5, -0.5)) == 0.8
    assert replace(CHECK, bound=0.0).slack(Measured(0.0, 0.0, 0.0)) == 0.0


@pytest.mark.parametrize("change", [{"id": "two words"}, {"id": ""}, {"claim": " "}, {"bound": math.inf}])
def test_a_check_says_what_it_lacks(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        replace(CHECK, **change)  # type: ignore[arg-type]


def test_clopper_pearson_and_share() -> None:
    assert clopper_pearson(0, 60, 0.9).high == pytest.approx(1 - 0.05 ** (1 / 60))
    assert clopper_pearson(0, 300, 0.9).high == pytest.approx(0.00994, abs=1e-5)
    assert clopper_pearson(60, 60, 0.9).low == pytest.approx(0.05 ** (1 / 60))
    assert clopper_pearson(3, 10).low == pytest.approx(0.06674, abs=1e-5)
    assert clopper_pearson(3, 10).high == pytest.approx(0.65245, abs=1e-5)
    seen = measures.share(0, 300)
    assert replace(CHECK, bound=0.01).judge(seen) == "PASS"
    assert replace(CHECK, bound=0.009).judge(seen) == "INCONCLUSIVE"
    worse = measures.share(19, 60)
    assert worse.breaks is not None
    assert worse.breaks(0.01, False) < 1e-6 < 0.99 < worse.breaks(0.01, True)
    with pytest.raises(InputError, match="clopper_pearson has 4 successes of 3"):
        clopper_pearson(4, 3)


def test_means_and_bootstraps_have_intervals() -> None:
    one = measures.mean([1.0, 2.0, 3.0])
    assert one.estimate == 2.0
    assert one.high - one.estimate == pytest.approx(2.919986 / math.sqrt(3), rel=1e-5)
    assert one.breaks is not None
    assert one.breaks(2.0, False) == one.breaks(2.0, True) == 0.5
    with pytest.raises(InputError, match="at least 2 values"):
        measures.mean([1.0])
    drawn = measures.resampled(50.0, range(101))
    assert drawn.low == pytest.approx(5.0)
    assert drawn.high == pytest.approx(95.0)
    assert drawn.breaks is not None
    assert drawn.breaks(-1.0, False) == pytest.approx(1 / 102)


def test_holm_over_the_suite() -> None:
    assert holm([0.01, 0.04, 0.03]) == [True, False, False]
    assert holm([0.01, 0.02, 0.03]) == [True, True, True]
    assert holm([]) == []
    base = execute(CHECK, Trial())

    def failed(name: str, p: float | None) -> Result:
        return replace(base, check=name, verdict="FAIL", p_value=p)

    kept = correct([failed("a", 0.03), failed("b", 0.0001), failed("c", None), replace(base, p_value=0.9)])
    assert [result.verdict for result in kept] == ["INCONCLUSIVE", "FAIL", "FAIL", "PASS"]
    assert "Holm" in kept[0].note


def test_every_check_is_described_and_its_id_is_its_own() -> None:
    found = checks.every()
    assert len(found) >= 3
    for id, check in found.items():
        assert check.id == id
        assert check.claim.endswith("."), f"the claim of {id} is not a sentence"
        assert check.control.what


def test_checks_are_chosen_by_id_size_and_paper() -> None:
    assert [check.id for check in checks.choose(["k2", "K2"], "smoke", None)] == ["K2"]
    assert {check.size for check in checks.choose([], "smoke", None)} == {"smoke"}
    assert all("CPL" in check.paper for check in checks.choose([], "full", "cpl"))
    with pytest.raises(InputError, match=r"unknown check 'K22' \(did you mean K2"):
        checks.choose(["K22"], "smoke", None)
    with pytest.raises(InputError, match="no check of size smoke or smaller is of a paper 'nobody'"):
        checks.choose([], "smoke", "nobody")


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", "K2", "CPL-shaping", "--size", "smoke", "--jobs", "1", "--out", str(tmp_path)]
    assert cli.main([*words, "--json", str(tmp_path / "kept.json")]) == 0
    rows = json.loads((tmp_path / "kept.json").read_text())
    assert [row["id"] for row in rows] == ["K2", "CPL-shaping"]
    assert {"id", "paper", "verdict", "control", "estimate", "bound", "slack", "seconds"} <= set(rows[0])
    assert "2 PASS, 0 FAIL, 0 INCONCLUSIVE" in capsys.readouterr().out
    (folder,) = (tmp_path / "check").iterdir()
    assert json.loads((folder / "results.json").read_text()) == rows
    assert "K2: PASS" in (folder / "report.html").read_text()
    assert cli.main(["check", "--list", "--json", str(tmp_path / "list.json")]) == 0
    listed = json.loads((tmp_path / "list.json").read_text())
    assert {row["id"] for row in listed} == set(checks.every())
    assert set(listed[0]) == {"id", "paper", "claim", "control", "size"}
    capsys.readouterr()
    assert cli.main(["check", "explain", "k2"]) == 0
    assert "Control, which must FAIL: the same preferences by partial return" in capsys.readouterr().out
    assert cli.main(["check", "nonsense"]) == cli.main(["check", "--jobs", "0"]) == 2
    assert cli.main(["check", "K2", "--json", str(tmp_path / "no" / "where.json")]) == 2
    said = capsys.readouterr().err
    assert "unknown check 'nonsense'" in said
    assert "there is no folder" in said


def test_a_failing_check_is_exit_code_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = replace(CHECK, statistic=lambda trial: measures.exactly(1.5, "what was seen"))
    monkeypatch.setattr(checks, "every", lambda: {"T1": failing})
    assert cli.main(["check", "T1", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "T1: what was seen" in said
    assert "0 PASS, 1 FAIL" in said


def test_processes_agree_with_one() -> None:
    chosen = [checks.find("K2"), checks.find("CPL-shaping")]
    alone, together = (
        sorted(
            (replace(one, seconds=0.0, cpu_seconds=0.0) for one in suite.run(chosen, "smoke", 3, jobs, None)),
            key=lambda one: one.check,
        )
        for jobs in (1, 2)
    )
    assert alone == together
    assert [one.seed for one in alone] == [3, 3]
    assert [Result.of_row(json.loads(json.dumps(one.row())), None) for one in alone] == alone


def _words(tmp_path: Path, *more: str) -> list[str]:
    return ["check", "K2", "K1", "CPL-shaping", "--size", "smoke", "--jobs", "1", "--out", str(tmp_path), *more]


def test_a_run_that_was_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def interrupted(check: Check, trial: Trial, figures: Path | None = None) -> Result:
        if check.id == "K1" and not ran.count("K1"):
            ran.append(check.id)
            raise KeyboardInterrupt
        ran.append(check.id)
        return execute(check, trial, figures)

    monkeypatch.setattr(suite, "execute", interrupted)
    assert cli.main(_words(tmp_path)) == 130
    (folder,) = (tmp_path / "check").iterdir()
    said = capsys.readouterr().err
    assert "1 of 3 checks are done and kept" in said
    assert f"go on with: pbrl {' '.join(_words(tmp_path))} --resume {folder}" in said
    assert "K2: PASS" in (folder / "report.html").read_text()

    assert cli.main(_words(tmp_path, "--resume", str(folder), "--seed", "1")) == 2
    assert "holds K2 at size smoke with seed 0, expected size smoke and seed 1" in capsys.readouterr().err
    assert cli.main(["check", "K1", "--resume", str(folder)]) == 2
    assert "holds the result of K2, expected only checks that this command names" in capsys.readouterr().err
    assert cli.main(_words(tmp_path, "--resume", str(tmp_path))) == 2
    assert "no results can be read" in capsys.readouterr().err

    assert cli.main(_words(tmp_path, "--resume", str(folder))) == 0
    assert "3 PASS, 0 FAIL, 0 INCONCLUSIVE" in capsys.readouterr().out
    assert ran == ["K2", "K1", "K1", "CPL-shaping"]
    assert [row["id"] for row in json.loads((folder / "results.json").read_text())] == ["K2", "K1", "CPL-shaping"]


def test_a_killed_process_loses_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import os\nfrom dataclasses import replace\nfrom experiments.checks.shaping import SHAPING\n"
        "def killed(trial):\n    os._exit(9)\n"
        "MINE = replace(SHAPING, id='killed', statistic=killed, size='smoke')\n"
    )
    assert cli.main(["check", "--file", str(path), "K2", "--jobs", "2", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "a process that ran checks was killed" in said
    assert "of 2 checks are done and kept" in said
