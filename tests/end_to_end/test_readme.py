"""README and package page: every block works as it is, from a clone and with an empty environment."""

from __future__ import annotations

import configparser
import email
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncauth import Account, Role
from asyncauth.testing import SimulatedFleet

if TYPE_CHECKING:
    from collections.abc import Iterator


ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "benchmarks" / "results" / "results.md").read_text(encoding="utf-8")

#: The accounts that the README names: the third has a role behind another one.
HUB, SECOND, THIRD = "111111111111", "222222222222", "333333333333"
EXTERNAL_ID = "7c1e-44b2"


@dataclass(frozen=True)
class Block:
    language: str
    text: str

    @property
    def name(self) -> str:
        """The file's name, which the first line of a program has."""
        match = re.match(r"# (\w+\.py)\n", self.text)
        assert match is not None, f"the first line of a program is its file's name: {self.text[:80]}"
        return match[1]


PAGINATED = re.compile(r'get_paginator\("describe_\w+"\).{1,200}', re.DOTALL)
BLOCKS = [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)]


@pytest.fixture(scope="module")
def clone() -> Iterator[Path]:
    """Copy the files that git knows, and nothing else."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git repository")
    # Not in pytest's folder: the scan for secrets would find the marked ones in the copied tests.
    with tempfile.TemporaryDirectory(prefix="asyncauth-clone-") as name:
        folder = Path(name)
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, folder / name)
        yield folder


@pytest.fixture(scope="module")
def wheels(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the wheel and the sdist of the clone, built without a network."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(clone)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def page(wheels: Path) -> str:
    """Return the description in the wheel's metadata, which is the package's page."""
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        return str(email.message_from_bytes(wheel.read(name)).get_payload(decode=True), "utf-8")


class TestPage:
    def test_it_has_no_relative_link_and_no_picture(self, page: str) -> None:
        """The page has no files beside it. Links to other sites stay."""
        links = re.findall(r"\]\(([^)]*)\)", page)

        assert links
        assert all(link.startswith("https://") for link in links), links
        assert "![" not in page
        assert "<img" not in page
        assert "](examples/README.md)" in README
        assert "\nexamples/ has programs that run as they are" in page

    def test_its_text_is_the_readme(self, page: str) -> None:
        """Nothing but the links and pictures differs: all blocks are on the page."""
        assert [block.text for block in BLOCKS if f"```{block.language}\n{block.text}```" not in page] == []
        assert page.startswith("# asyncauth\n")

    def test_links_of_the_readme_exist(self) -> None:
        """A relative link is a file of the repository."""
        links = [link for link in re.findall(r"\]\(([^)]*)\)", README) if "://" not in link]

        assert len(links) >= 5
        assert [link for link in links if not (ROOT / link).exists()] == []

    def test_the_sdist_has_what_the_readme_names(self, wheels: Path) -> None:
        """Examples, docs and benchmarks are in the sdist."""
        listed = subprocess.run(
            ["tar", "-tf", str(next(wheels.glob("*.tar.gz")))], capture_output=True, text=True, check=True
        ).stdout
        links = [link for link in re.findall(r"\]\(([^)]*)\)", README) if "://" not in link]

        assert [link for link in links if f"/{link}\n" not in listed] == []


#: Output of commands for which the README shows none.
SHOWN = {
    'ACCOUNTS="111111111111 222222222222" python job.py': r"\n4 targets: 4 succeeded; 2 accounts reached, 0 with",
    'ACCOUNTS="222222222222 333333333333" python reachable.py': r"^2 of 2 accounts can be reached \(100%\)",
    "python -m asyncauth.testing python volumes.py": r"^3 targets: 3 succeeded",
    "python -m asyncauth.testing --accounts aws=2 aws-cn=1 -- python both.py": r"aws-cn cn-north-1 arn:aws-cn:sts::2",
    "python -m asyncauth.testing --accounts aws=1 -- python stop.py": r"4 targets: 4 skipped; .*: dry run",
    "python -m asyncauth.testing --accounts aws=1 -- python stop.py --yes": r"4 targets: 4 succeeded",
    'ACCOUNTS="222222222222" python database.py': r"^1 VPCs",
    "python -m pytest test_job.py": r"1 passed",
}


# -- the blocks ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def python(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment with the dependencies, and without asyncauth."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True, symlinks=True)
    executable = folder / "bin" / "python"
    target = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        of_asyncauth = package.name.lstrip("_").startswith(("asyncauth", "editable"))
        if not of_asyncauth and not (target / package.name).exists():
            (target / package.name).symlink_to(package)
    return executable


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    """Run the accounts that the README names, as far as AWS itself is concerned."""
    hub = Role("hub")
    accounts = [Account(HUB, role=hub), *(Account(number) for number in (SECOND, THIRD))]
    with SimulatedFleet(accounts, preload=("ec2",)) as fleet:
        for number in (HUB, SECOND, THIRD):
            fleet.blocking.add_role(number, "manage-role")
        for number in (SECOND, THIRD):
            fleet.blocking.add_role(number, "audit", trusted=[f"arn:aws:iam::{HUB}:role/hub"], external_id=EXTERNAL_ID)
        yield fleet


@pytest.fixture(scope="module")
def home(fleet: SimulatedFleet, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home directory with what a user has in it: AWS's files, and pip's settings."""
    home = tmp_path_factory.mktemp("home")
    keys = fleet.keys()
    _write(home / ".aws" / "config", "default", region="us-east-1", endpoint_url=fleet.endpoint_url)
    _write(
        home / ".aws" / "credentials",
        "default",
        aws_access_key_id=keys.access_key_id,
        aws_secret_access_key=keys.secret_access_key,
    )
    _write(home / ".config" / "pip" / "pip.conf", "global", no_index="true", find_links=str(wheels))
    folder = home / "work"
    folder.mkdir()
    # The database of "Where base credentials come from".
    with sqlite3.connect(folder / "credentials.db") as database:
        database.execute("CREATE TABLE aws_keys (name, id, secret, ends)")
        row = ("prod", keys.access_key_id, keys.secret_access_key, time.time() + 3600)
        database.execute("INSERT INTO aws_keys VALUES (?, ?, ?, ?)", row)
    database.close()
    return home


def _write(path: Path, section: str, **values: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    settings = configparser.ConfigParser(interpolation=None)
    settings[section] = {name.replace("_", "-") if "pip" in path.parts else name: v for name, v in values.items()}
    with path.open("w", encoding="utf-8") as file:
        settings.write(file)


def test_every_block_works_as_it_is_typed(clone: Path, python: Path, home: Path) -> None:
    """Programs are pasted into files, commands are typed in order with `env -i`, and the output is the one shown.

    The environment has PATH and HOME only, so `pip` gets the wheel of the clone by its own settings file. `make` is
    typed with `-n`: its commands would set up further environments.
    """
    folder = home / "work"
    shown = ""
    everything: dict[str, str] = {}
    for block in BLOCKS:
        match block.language:
            case "python":
                (folder / block.name).write_text(block.text, encoding="utf-8")
            case "bash":
                typed = {line: _type(line, python, home, clone) for line in block.text.splitlines()}
                shown = "".join(typed.values())
                everything |= typed
            case "text":
                assert _shape(shown) == _shape(block.text)
            case "console":
                continue  # typed into a shell of 80 columns by tests/cli/test_readme_path.py
            case "json":
                assert json.loads(block.text)["Version"] == "2012-10-17"
            case other:
                pytest.fail(f"no test for blocks of {other}")

    programs = [block.name for block in BLOCKS if block.language == "python"]
    assert len(programs) >= 7
    assert [name for name in programs if not any(name in line for line in everything)] == []
    imported = _type("python -c 'import asyncauth; print(asyncauth.__file__)'", python, home, clone)
    assert Path(imported.strip()).is_relative_to(python.parent.parent)
    for line, expected in SHOWN.items():
        assert re.search(expected, everything[line]), everything[line]


def _type(line: str, python: Path, home: Path, clone: Path) -> str:
    of_clone = line.startswith("make ")
    done = subprocess.run(
        ["env", "-i", f"PATH={python.parent}:/usr/bin:/bin", f"HOME={home}", "sh", "-c", line + " -n" * of_clone],
        cwd=clone if of_clone else home / "work",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}"
    assert "Traceback" not in done.stdout, f"{line}\n{done.stdout}"
    assert "failed" not in done.stdout.replace("0 with failures", ""), f"{line}\n{done.stdout}"
    return done.stdout


def _shape(shown: str) -> list[str]:
    """Return the lines without times, sorted: the progress goes to another stream."""
    return sorted(re.sub(r"\d+\.\d+ s", "N s", line) for line in shown.splitlines())


def test_the_policies_are_those_of_the_programs() -> None:
    """Role, external id and partition are the same in the documents and in the text beside them."""
    policies = [json.loads(block.text)["Statement"] for block in BLOCKS if block.language == "json"]

    for partition, (source, trust) in zip(("aws", "aws-cn"), (policies[:2], policies[2:]), strict=True):
        assert source[0]["Resource"] == f"arn:{partition}:iam::*:role/{Role().name}"
        assert source[0]["Action"] == trust[0]["Action"] == "sts:AssumeRole"
        assert {action.split(":")[0] for action in source[1]["Action"]} == {"organizations"}
        assert trust[0]["Principal"]["AWS"].startswith(f"arn:{partition}:iam::")
        assert trust[0]["Condition"] == {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}}
    assert f'Role("manage-role", external_id="{EXTERNAL_ID}")' in README


def test_every_paginator_has_a_page_size() -> None:
    """Without one, botocore sends no MaxResults, and EC2 returns everything in one response."""
    programs = [block.text for block in BLOCKS if block.language == "python"]
    programs += [path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.py")]
    calls = [
        call for text in programs for call in re.findall(r'get_paginator\("describe_\w+"\).{1,200}', text, re.DOTALL)
    ]

    assert len(calls) >= 7
    assert [call for call in calls if '"PageSize": 1000' not in call] == []


def test_every_figure_of_the_costs_is_measured() -> None:
    """Each number of that section is in the benchmark's results."""
    section = README[README.index("## What it costs") : README.index("## When not to use it")]
    of_the_work = {"1.00", "2", "100", "1,000", "10,000", "90"}  # numbers of accounts, cores and percent
    figures = set(re.findall(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?", section)) - of_the_work

    assert len(figures) >= 12
    assert [figure for figure in figures if not re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d])", RESULTS)] == []


def test_the_readme_names_every_extra() -> None:
    """The table of extras has each one of the package."""
    rows = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.search(r"\[project.optional-dependencies\]\n(.*?)\n\n", pyproject, re.DOTALL)

    assert extras is not None
    assert sorted(rows) == sorted(re.findall(r"^(\w+) = ", extras[1], re.MULTILINE))
