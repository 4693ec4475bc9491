"""HTML report in a real browser: it logs nothing, loads nothing, and fits every width in both colour schemes."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncauth.stores import report
from tests.support.browser import find_browser, measure, visit
from tests.support.reports import REGIONS, write_store

LONG = "a-very-long-name-without-any-space-" * 4
NAMES = [f"team-{number:02d}-production" for number in range(57)] + [
    "<script>document.title='run'</script>",
    LONG,
    '"><img src="http://example.com/x.png" onerror="document.title=1">',
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of 70 accounts in two partitions, with every state, long and hostile names, and metrics."""
    find_browser()
    folder = tmp_path_factory.mktemp("browser")
    states = ("ok", "ok", "ok", "denied", "error", "skipped", "ok")
    write_store(
        folder / "store.db",
        NAMES,
        status_of=lambda at, region: states[(at + len(region)) % 7],
        reason=f"no answer from https://{LONG}.example.com",
        resource_name=LONG,
        series=12,
    )
    write_store(folder / "store.db", ["china"] * 10, regions=["cn-north-1"], partition="aws-cn")
    return report(folder / "store.db", folder / "page.html")


@pytest.fixture
def control(tmp_path: Path) -> Path:
    """Return a page that does what a report must not do."""
    path = tmp_path / "control.html"
    path.write_text(
        "<!doctype html><meta http-equiv='Content-Security-Policy' content=\"script-src 'none'\"><body>"
        "<script>1</script><img src='http://127.0.0.1:8089/x.png'><div style='width:3000px'>x</div>"
    )
    return path


@pytest.mark.parametrize("is_dark", [False, True])
def test_the_page_logs_and_loads_nothing(page: Path, is_dark: bool) -> None:
    """No message on the console, so no violation of the policy, and no request."""
    found = visit(page, is_dark=is_dark)

    assert found.console == ()
    assert found.requests == ()
    assert "<title>Inventory of 70 accounts</title>" in found.dom


@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize("width", [360, 800, 1400])
def test_the_page_fits_its_window(page: Path, width: int, is_dark: bool) -> None:
    """No element is wider than the window, every account has its row, and no cell vanishes."""
    found = measure(page, width=width, is_dark=is_dark)

    assert found["inner"] == width
    assert found["scroll"] <= width
    assert found["wide"] == []
    assert (found["rows"], found["empty"]) == (70, 0)


@pytest.mark.parametrize("regions", [1, 2, 8, 9])
def test_few_and_more_regions_fit_a_narrow_window(tmp_path: Path, regions: int) -> None:
    """Up to eight regions the parts of the matrix are side by side where there is space."""
    find_browser()
    write_store(tmp_path / "store.db", NAMES, regions=REGIONS[:regions])
    page = report(tmp_path / "store.db", tmp_path / "page.html")

    for width in (360, 800, 1400):
        found = measure(page, width=width)
        assert (found["scroll"] <= width, found["wide"]) == (True, [])


def test_grouped_accounts_fit_a_narrow_window(tmp_path: Path) -> None:
    """Rows of several accounts have their names in a part that opens without a script."""
    find_browser()
    names = [f"{LONG}{number}" for number in range(300)]
    write_store(tmp_path / "store.db", names, status_of=lambda at, _: "ok" if at % 2 else "error")
    page = report(tmp_path / "store.db", tmp_path / "page.html")

    page.write_text(page.read_text("utf-8").replace("<details", "<details open"), "utf-8")

    found = measure(page, width=360)
    assert (found["scroll"] <= 360, found["wide"], found["rows"]) == (True, [], 2)


def test_a_script_in_a_name_does_not_run(page: Path) -> None:
    """Even without the policy: the only script of the copy is the one that measures, and no name became an element."""
    found = measure(page, width=800)

    assert (found["scripts"], found["dangers"]) == (1, 0)


def test_the_page_is_dark_and_light(page: Path) -> None:
    """Both colour schemes have dark text on light, and light text on dark."""

    def brightness(colour: str) -> int:
        return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))

    light, dark = measure(page, width=800), measure(page, width=800, is_dark=True)

    assert brightness(light["page"]) > 600 > 300 > brightness(light["text"])
    assert brightness(dark["page"]) < 150 < 500 < brightness(dark["text"])


def test_the_checks_find_what_they_look_for(control: Path) -> None:
    """A page with a script, a picture and a wide element shows up in the console, the requests and the measures."""
    find_browser()
    found = visit(control)

    assert any("Content Security Policy" in line for line in found.console)
    assert found.requests == ("GET http://127.0.0.1:8089/x.png",)
    assert measure(control_without_policy(control), width=800)["scroll"] > 800


def control_without_policy(control: Path) -> Path:
    text = control.read_text().replace("<meta http-equiv='Content-Security-Policy' content=\"script-src 'none'\">", "")
    control.write_text(text)
    return control


@pytest.mark.parametrize(("ci", "outcome"), [("1", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_without_a_browser_the_tests_fail_in_ci_and_are_skipped_elsewhere(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    """A run in CI fails, and any other run prints which test did not run."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(outcome, match="THIS TEST DID NOT RUN"):
        find_browser()
