"""The theory's page is made from what ``pbrl check`` leaves; a check in a file of one's own is run as any other."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import checks, cli
from experiments.reports import theory
from pbrl.errors import InputError
from pbrl.theory.check import Trial, execute

ROOT = Path(__file__).parents[1]


def _own(tmp_path: Path) -> Path:
    (code,) = re.findall(r"```py\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "mine.py"
    path.write_text(code, encoding="utf-8")
    return path


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_the_readme_s_check_runs(
    jobs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checks, "_OUTSIDE", {})
    words = ["check", "K2", "--file", str(_own(tmp_path)), "--size", "smoke", "--jobs", jobs, "--out", str(tmp_path)]
    assert cli.main(words) == 0
    assert "2 PASS, 0 FAIL, 0 INCONCLUSIVE" in capsys.readouterr().out
    (folder,) = (tmp_path / "check").iterdir()
    rows = theory.read_checks(folder / "checks.csv")
    assert [(row["id"], row["verdict"], row["control"]) for row in rows] == [
        ("my-contraction", "PASS", "FAIL"),
        ("K2", "PASS", "FAIL"),
    ]
    assert rows[0]["command"].startswith("pbrl check K2 --file")
    assert "torch" in rows[0]["versions"]
    assert rows[0]["seed"] == "0"


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("x = 1", "has no Check in it"),
        ("import nothing_of_that_name", "ModuleNotFoundError while it was run"),
        ("def (", "SyntaxError while it was run"),
        ("from experiments.checks.shaping import SHAPING", "has no Check in it"),
        (
            "from dataclasses import replace\nfrom experiments.checks.shaping import SHAPING as S\nMINE = replace(S)",
            "the id CPL-shaping is that of a check of the library",
        ),
    ],
)
def test_a_file_without_a_check_of_its_own_is_told(code: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(code, encoding="utf-8")
    with pytest.raises(InputError, match=complaint):
        checks.take(path)
    with pytest.raises(InputError, match="there is no such file"):
        checks.take(tmp_path / "none.py")


def test_the_page_tells_what_held_and_what_did_not(tmp_path: Path) -> None:
    run, results = tmp_path / "run", tmp_path / "experiments" / "results"
    (run / "figures").mkdir(parents=True)
    results.mkdir(parents=True)
    shaping, k2 = checks.find("CPL-shaping"), checks.find("K2")

    good = replace(execute(shaping, Trial()), caption="Advantages, before and after.")
    bad = replace(execute(k2, Trial()), verdict="INCONCLUSIVE", note="said why")
    theory.write_checks([good, bad], [shaping, k2], 3, "pbrl check", run / "checks.csv")
    (run / "figures" / "CPL-shaping.png").write_bytes(b"new")
    (results / "check_old.png").write_bytes(b"old")
    theory.take_checks(run, results)
    assert sorted(path.name for path in results.iterdir()) == ["check_CPL-shaping.png", "checks.csv"]
    page = theory.theory_page(results, tmp_path / "docs")
    assert "2 claims of 2 papers" in page
    assert "1 PASS, 0 FAIL, 1 INCONCLUSIVE; 2 of 2 controls fail" in page
    assert "said why" in page
    assert "](../experiments/results/check_CPL-shaping.png)" in page
    part = theory.checks_part(results)
    assert "K2 (INCONCLUSIVE)" in part
    assert "](experiments/results/check_CPL-shaping.png)" in part
    table = (results / "checks.csv").read_text(encoding="utf-8")
    (results / "checks.csv").write_text(table.replace("INCONCLUSIVE", "MAYBE"), encoding="utf-8")
    with pytest.raises(InputError, match="verdict of K2 is 'MAYBE'"):
        theory.read_checks(results / "checks.csv")
