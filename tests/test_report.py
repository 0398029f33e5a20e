"""The report: what it says comes from the files, is escaped, and damaged folders are told by name."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from experiments import cli
from experiments.reports import report
from experiments.reports.page import Figure, Page, Section, Table, Text, html, markdown, markdown_table, narrow
from pbrl.errors import InputError

VOID = {"meta", "img", "br"}
EVIL = '<script>alert("1")</script> | [x](y) & `z`'


class Outline(HTMLParser):
    """Checks that tags are closed in order, and gathers tables, images and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += text


def outline(text: str) -> Outline:
    parsed = Outline()
    parsed.feed(text)
    assert not parsed.open, "tags are left open"
    return parsed


def make_run(folder: Path, name: str = "run", metric: str = "score", group: str = "regret") -> Path:
    """A training run of two groups of three members, written by hand: scores 10 member + updates / 100."""
    place = folder / name
    place.mkdir(parents=True)
    config = {"agent": "cpl", "identity": {"updates": 200, "dataset": {"name": "local/x/y-v1"}, "seeds": [0, 1, 2]}}
    (place / "config.json").write_text(json.dumps(config))
    (place / "environment.json").write_text(json.dumps({"torch": "2.13.0", "commit": None}))
    quoted = '"' + group.replace('"', '""') + '"'
    members = [f"{i},{i % 3},{quoted if i < 3 else 'partial_return'},0.1" for i in range(6)]
    (place / "members.csv").write_text("\n".join(["member,seed,labels,alpha", *members]) + "\n")
    lines = ["member,updates,env_steps,name,value"]
    for updates in (100, 200):
        lines += [f"{i},{updates},0,{metric},{10 * i + updates / 100}" for i in range(6)]
        lines += [f"{i},{updates},0,held_out_accuracy,0.75" for i in range(6)]
        lines += [f"{i},{updates},0,loss,1.0" for i in range(6)]
    (place / "metrics.csv").write_text("\n".join(lines) + "\n")
    return place


def test_report_of_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    out = report.publish([run])
    assert out == run / "report.html"
    parsed = outline(out.read_text())
    assert "12.0 [2.0, 22.0]" in parsed.cells  # IQM of 2, 12, 22, the last scores of the first group
    assert "42.0 [32.0, 52.0]" in parsed.cells
    assert "75 %" in parsed.cells
    assert {"regret", "partial_return", "identity.updates", "local/x/y-v1", "2.13.0"} <= set(parsed.cells)
    assert "alpha=0.1" not in out.read_text(), "what all members share tells no group from another"
    page = (run / "report.md").read_text()
    assert "12.0 [2.0, 22.0]" in page
    link = re.search(r"!\[.*\]\((.*)\)", page)
    assert link is not None
    assert (run / link[1]).read_bytes().startswith(b"\x89PNG")


def test_last_is_not_best(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    text = (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text(text.replace("0,100,0,score,1.0", "0,100,0,score,90.0"))
    cells = outline(report.publish([run]).read_text()).cells
    assert "12.0 [2.0, 22.0]" in cells
    assert "41.3 [12.0, 90.0]" in cells


def test_a_run_that_was_not_evaluated(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run / "metrics.csv").write_text("member,updates,env_steps,name,value\n")
    assert "Nothing was evaluated yet" in report.publish([run]).read_text()


def test_a_member_that_diverged(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    text = (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text(text.replace("0,200,0,score,2.0", "0,200,0,score,nan"))
    cells = outline(report.publish([run]).read_text()).cells
    assert any("(1 of 3 diverged)" in cell for cell in cells)
    assert "diverged" in cells


def test_self_contained_and_escaped(tmp_path: Path) -> None:
    out = report.publish([make_run(tmp_path, group=EVIL)])
    parsed = outline(out.read_text())
    assert not {"script", "link", "iframe", "object"} & set(parsed.tags)
    assert not [name for name, _ in parsed.attributes if name.startswith("on") or name == "href"]
    sources = [value or "" for name, value in parsed.attributes if name == "src"]
    assert sources
    for source in sources:
        head, _, body = source.partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(body).startswith(b"\x89PNG")
    assert EVIL in parsed.cells
    page = out.with_suffix(".md").read_text()
    assert "<script" not in page.replace("\\<script", "")
    assert "[x](y)" not in page
    tables = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
    assert tables
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_several_runs(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, "one"), make_run(tmp_path, "two")]
    out = report.publish(runs)
    assert out == tmp_path / "report.html"
    text = out.read_text()
    assert "All runs" in text
    assert text.count("<img") == 3  # together, and each
    assert "one: Settings" in text
    assert "two: Settings" in text


def test_runs_that_are_judged_by_other_things_share_no_figure(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, "one"), make_run(tmp_path, "two", metric="return")]
    assert report.publish(runs).read_text().count("<img") == 2


def test_each_metric_has_a_table_and_a_caption_of_its_own(tmp_path: Path) -> None:
    kinds = {"one": "score", "two": "return", "three": "held_out_accuracy", "four": "score"}
    runs = [make_run(tmp_path, name, metric) for name, metric in kinds.items()]
    page = report.publish(runs).with_suffix(".md").read_text()
    section = page[page.index("All runs") : page.index("one: Scores")]
    captions = ["Normalised score: 0", "Return per episode.", "Share of held-out labels predicted (in %)."]
    found = re.split("|".join(map(re.escape, captions)), section.replace("\\", ""))
    names = [re.findall(r"^\| (one|two|three|four) \|", part, re.MULTILINE) for part in found]
    assert names == [["one", "one", "four", "four"], ["two", "two"], ["three", "three"], []]


def test_a_run_that_is_given_twice_counts_once(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    out = report.publish([run, run / ".." / "run"])
    assert out == run / "report.html"
    assert "All runs" not in out.read_text()


def test_labels_are_told_even_if_all_members_share_them(tmp_path: Path) -> None:
    run = make_run(tmp_path, group="partial_return")
    cells = outline(report.publish([run]).read_text()).cells
    assert cells[cells.index("members") + 6] == "partial_return"


def test_label_files_are_called_by_their_stems_unless_two_have_the_same(tmp_path: Path) -> None:
    run = make_run(tmp_path, group="/far/away/human.npz")
    assert "/far/away" not in report.publish([run]).read_text()
    assert "human" in outline(report.publish([run]).read_text()).cells
    text = (run / "members.csv").read_text()
    (run / "members.csv").write_text(text.replace("partial_return", "/near/human.npz"))
    assert {"/far/away/human.npz", "/near/human.npz"} <= set(outline(report.publish([run]).read_text()).cells)


def test_long_lists_are_left_to_the_file(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    config = json.loads((run / "config.json").read_text())
    config["identity"]["answers"] = [{"who": "someone", "fingerprint": "0" * 64}] * 2
    config["identity"]["short"] = [[1, 2]]
    (run / "config.json").write_text(json.dumps(config))
    cells = outline(report.publish([run]).read_text()).cells
    assert cells[cells.index("identity.answers") + 1] == "2 entries, see config.json"
    assert cells[cells.index("identity.short") + 1] == "[[1, 2]]"


def test_nothing_is_left_half_written(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    out = tmp_path / "new" / "page.html"
    report.publish([run], out)
    assert {path.name for path in out.parent.iterdir()} == {"page.html", "page.md", "page_figures"}


def test_the_command_line_prints_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Train, then report, as a user would."""
    words = "train bc --dataset local/reacher/mixed-v1 --updates 20 --episodes 1 --hidden 8 8 --seed 0 1 --threads 1"
    assert cli.main([*words.split(), "--out", str(tmp_path)]) == 0
    (run,) = (tmp_path / "train").iterdir()
    capsys.readouterr()
    assert cli.main(["report", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert "Normalised score" in (run / "report.html").read_text()


def damage(name: str, content: bytes | None) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        if content is None:
            (run / name).unlink()
        else:
            (run / name).write_bytes(content)

    return change


HEADER = b"member,updates,env_steps,name,value\n"
DAMAGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "config is no JSON": (damage("config.json", b"{"), "config.json: damaged"),
    "config is a list": (damage("config.json", b"[1]"), "config.json: holds a list"),
    "config names no agent": (damage("config.json", b"{}"), "config.json: no agent"),
    "no members": (damage("members.csv", None), "members.csv: unreadable"),
    "members are binary": (damage("members.csv", b"\xff\xfe\x00"), "members.csv: unreadable"),
    "members lack a column": (damage("members.csv", b"member,x\n0,1\n"), "members.csv: column 'seed' is missing"),
    "members are empty": (damage("members.csv", b"member,seed\n"), "members.csv: no rows"),
    "no metrics": (damage("metrics.csv", None), "metrics.csv: unreadable"),
    "metrics with a short line": (damage("metrics.csv", HEADER + b"0,1\n"), "metrics.csv: line 2"),
    "metrics of words": (damage("metrics.csv", HEADER + b"0,1,0,score,x\n"), "metrics.csv: column 'value' has 'x'"),
    "metrics of another member": (damage("metrics.csv", HEADER + b"9,1,0,score,1\n"), "metrics.csv: member '9'"),
    "metrics without updates": (damage("metrics.csv", HEADER + b"0,,0,score,1\n"), "metrics.csv: column 'updates'"),
    "no environment": (damage("environment.json", None), "environment.json: unreadable"),
    "results of something else": (damage("results.csv", b"a,b\n1,2\n"), "results.csv: column 'agent' is missing"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_folders(case: str, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    change, words = DAMAGED[case]
    change(run)
    with pytest.raises(InputError, match=words) as caught:
        report.publish([run])
    assert "\n" not in str(caught.value)
    assert not (run / "report.html").exists()


def test_bad_requests(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for folders, out, words in (
        ([], None, "expected at least one"),
        ([tmp_path / "none"], None, "no such folder"),
        ([tmp_path], None, "not a run"),
        ([run], tmp_path / "page.pdf", "expected .html"),
        ([run], run / "config.json" / "page.html", "cannot be written"),
    ):
        with pytest.raises(InputError, match=words):
            report.publish(folders, out)


def test_a_page_in_both_forms(tmp_path: Path) -> None:
    picture = tmp_path / "a picture.png"
    picture.write_bytes(b"\x89PNG")
    table = Table(("name", "n"), (("a|b", "1"), ("c", "2")), caption="About *it*.", fold="All")
    page = Page("T <b>", "> lead", (Section("S", (Text("A & B: x < y > z &lt; <!-- "), table, Figure(picture, "F"))),))
    made = html(page)
    assert outline(made).cells == ["name", "n", "a|b", "1", "c", "2"]
    assert "<summary>All</summary>" in made
    assert 'content="width=device-width' in made
    assert "prefers-color-scheme: dark" in made
    told = markdown(page, tmp_path / "sub")
    assert "# T \\<b>" in told
    assert "\n\\> lead\n" in told
    assert "A & B: x < y > z \\&lt; \\<!--" in told
    assert "](../a%20picture.png)" in told
    wide = Table(("n",), (("a|b", "1 [-2, 3.5]"),))
    assert markdown_table(narrow(wide)).splitlines()[2] == "| a\\|b | 1 [-2,\u00a03.5] |"
    assert markdown_table(table).splitlines()[:3] == ["| name | n |", "| --- | ---: |", "| a\\|b | 1 |"]
