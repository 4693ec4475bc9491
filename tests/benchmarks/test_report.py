"""The page of results: promises are judged, figures and pictures are complete."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from benchmarks import __main__ as command
from benchmarks import _report, _svg, rate_simulation
from benchmarks._processes import ChildFailed

if TYPE_CHECKING:
    from pathlib import Path


def test_ratios_are_judged(result: dict[str, Any]) -> None:
    """Each promise is compared with its ratio, whether kept or broken."""
    judged = {claim.text: (pytest.approx(claim.measured), claim.holds) for claim in _report.claims(result)}

    assert judged == {
        "requests per second of the canned server's CPU": (40_000.0, True),
        "CPU per account against one stock client": (2 / 3, True),
        "CPU per account against aiohttp + botocore's signer": (2.0, True),
        "times less CPU than aioboto3, a session per account, at 100 accounts": (235.6, True),
        "times less CPU than boto3 with care, in threads, at 1,000 accounts": (14.5, True),
        "CPU per account at 10,000 against 1,000": (1.05, True),
        "peak RSS at 10,000 accounts, MiB": (120.0, True),
        "binding a client, microseconds": (25.0, False),
        "a bound client, bytes": (1_500.0, True),
        "messages after a forgotten login": (1.0, True),
        "a whole process with 100 accounts against one stock client": (1.25, False),
        "requests to the portal after a forgotten login": (2.0, False),
        "CPU of the busiest of two Dask workers against one process": (0.6, True),
        "AssumeRole calls per account on two Dask workers": (1.0, True),
        "growth of the client while 100,000 targets stream from workers, MiB": (31.0, False),
        "start of Tab, milliseconds": (201.0, False),
        "event-loop lag under big pages, p99, ms": (12.0, True),
        "event-loop lag under big pages, worst, ms": (140.0, False),
        "rows into SQLite, narrow, against plain executemany": (0.8, True),
        "rows into SQLite, with raw, against plain executemany": (0.6, False),
        "event-loop lag under a sync, p99, ms": (12.0, True),
        "event-loop lag under a sync, worst, ms": (151.0, False),
        "event-loop lag under a page of 100,000 data points, p99, ms": (31.0, False),
        "event-loop lag under a page of 100,000 data points, worst, ms": (20.0, True),
        "peak RSS at 1,000,000 rows above that at 10,000, MiB": (49.5, False),
        "peak RSS of a sync with 5,000 instances an account above 1,000, MiB": (13.0, True),
        "TLS handshakes at STS per account at once": (1.0, True),
        "TLS handshakes at EC2 per account at once": (1.005, False),
    }


def test_page_contains_the_figures(result: dict[str, Any]) -> None:
    """The Markdown page has every row, the variants that stop earlier, the better variants, and broken promises."""
    page = _report.markdown(result)

    assert "| **asyncauth** | 1,000 | 3 | 2.00 (1.80 to 2.40) | 1.00 | 500 | 70.0 | 3.50 |" in page
    assert "| aioboto3, a session per account | 100 | 3 | 589 (530 to 707) | 236 |" in page
    assert "| aioboto3, a session per account | 300 | 589 | stops earlier | stops earlier |" in page
    assert "- CPU per account: 2.00 ms; aiohttp + botocore's signer 1.00 ms" in page
    assert "aioboto3 1.2.3, aiohttp 1.2.3, asyncauth 1.2.3" in page
    assert "- accounts per second at 100: 250/s; one stock aiobotocore client (the wrong account) 480/s" in page
    assert "### Accounts per second, by the number of accounts" in page
    assert "| **asyncauth** | - | 70.0 | 70.0 | 120 |" in page
    assert "| **asyncauth** | 1,000 | 3 | 200 | 118 | 121 | 200 | 201 |" in page
    assert "| **asyncauth** | 2 | 1.00 | 12.0 | 140 |" in page
    assert "| Tab | 15 | 201 | 90.0 to 210 | 90.0 |" in page
    assert "| with raw | 40,000 | 50,000 | 90,000 | 0.60 | 0.20 | 0.10 |" in page
    assert "| a sync of 50 pages of 1,000 instances, 20 at once | 3 | 1.00 | 12.0 | 151 | 9.00 |" in page
    assert "| a sync of a page of 100,000 data points | 3 | 1.00 | 31.0 | 20.0 | 0.50 |" in page
    assert "The store takes 31% of the sync's CPU time." in page
    assert "| a sync of 60 accounts with 5,000 instances each | 193 | 30.0 |" in page
    assert "- runacross: not run" in page
    assert "| **asyncauth** | 2 | 0.75 | 1.25 |" in page
    assert "| the cached token has ended | **asyncauth** | 3 | 1,200 | 0.31 | 0.30 | 1 | 2 |" in page
    assert "| two workers | 10,200 | 5 | 6.00 (5.00 to 7.00) | 2.00 | 10,200 | 40.0 | 300 | 15.0 |" in page
    assert "100,000 targets whose job does nothing: 2,000 a second on two workers." in page
    assert "- stream: failed: it was late" in page
    assert "| binding a client, microseconds | 25.0 | at most 20.0 | **no** |" in page
    assert "| 90 % of the best from | 10 at once | 1,000 at once |" in page


@pytest.mark.parametrize("draw", ["fleet", "sweep"])
def test_pictures_are_complete(result: dict[str, Any], draw: str) -> None:
    """Both pictures are well-formed SVG, every mark is inside the view box, and dark pages have their own colours."""
    text = {"fleet": _svg.cpu_chart, "sweep": _svg.sweep_chart}[draw](result[draw])

    root = ET.fromstring(text)
    _, _, width, height = (float(part) for part in root.attrib["viewBox"].split())
    marks = [element for element in root.iter() if {"x", "cx", "x1"} & set(element.attrib)]
    assert len(marks) > 15
    for mark in marks:
        for name, most in (("x", width), ("cx", width), ("x1", width), ("x2", width), ("y", height), ("cy", height)):
            assert 0 <= float(mark.attrib.get(name, 0)) <= most
    assert "prefers-color-scheme: dark" in text
    assert "nan" not in text.lower()


def test_only_a_complete_run_writes_the_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, result: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Only a complete run writes the files that the README shows, and returns 1 for a broken promise."""
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(command, "measure", lambda _options: result)

    assert command.main(["--quick"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scratch"]
    assert command.main([]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cpu-per-account.svg",
        "results.json",
        "results.md",
        "scratch",
        "sweep.svg",
    ]
    assert "not kept: binding a client" in capsys.readouterr().err


def test_sections_that_were_measured_apart_have_their_date(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, result: dict[str, Any]
) -> None:
    """`--add` keeps the complete result and marks what it adds, and takes whole sections only."""
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(command, "measure", lambda _options: result)
    command.main([])
    before = json.loads((tmp_path / "results.json").read_text())
    rates = rate_simulation.run(sizes=(10,), log=lambda _: None)
    about = {"when": "1 May 2030", "load_before": 0.5}
    monkeypatch.setattr(command, "measure", lambda _options: {"about": dict(about), "rates": rates})

    assert command.main(["--only", "rates", "--add"]) == 0

    assert json.loads((tmp_path / "results.json").read_text()) == {**before, "rates": {**rates, "apart": about}}
    page = (tmp_path / "results.md").read_text()
    assert page.count("Measured in a run of its own, 1 May 2030; load average before the run 0.50.") == 1
    with pytest.raises(SystemExit):
        command.main(["--only", "rates", "--add", "--quick"])


def test_a_section_that_fails_does_not_lose_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are written beside the results of complete runs, the error names the section, and the exit code is 1."""

    def fail(**_: Any) -> NoReturn:
        raise ChildFailed("it has ended")

    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(command, "SECTIONS", ("login", "rates"))
    monkeypatch.setattr(command.login, "run", fail)
    monkeypatch.setattr(command.server, "measure", lambda _: {"requests_per_core_second": 1.0})

    assert command.main([]) == 1

    assert "failed: login: ChildFailed: it has ended" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]
    assert set(json.loads((tmp_path / "scratch" / "results.json").read_text())) == {"about", "rates"}
