"""Secret scan: a pytest plugin that looks for marked secrets in what the suite leaves behind, and counts what it read.

Channels: log records, output, files, pickles, and the objects that are reachable from outcomes and reports. A finding
fails its test; files are read when the session ends, and fail the session.

Marked secrets are those that a simulated fleet issues, by their beginning, and constants of the tests. Excluded by
name: the attributes of `Keys`, which `credentials()` returns, and the environment of `environ(static=True)`.
"""

from __future__ import annotations

import io
import logging
import pickle
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest

from asyncauth import Keys
from asyncauth._runs import Outcome, Report, Succeeded
from tests.support.references import reachable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path

#: The secrets of a simulated fleet: the whole random part must be there, so that this line is none of them.
_ISSUED: Final = r"SimulatedS(?:ecret|essionToken)//[\w-]{20}"
#: Secrets of tests with servers of their own.
_CONSTANTS: Final = ("stolen-secret", "stolen-token", "Gr8-marked", "marked-secret-access-key", "marked-session-token")
_MARKED: Final = re.compile("|".join([_ISSUED, *map(re.escape, _CONSTANTS)]).encode())
MARKED_TEXT: Final = re.compile(_MARKED.pattern.decode())

#: Tests whose jobs put secrets into their outcomes, to show that other places do not take them over.
_DELIBERATE: Final = ("TestJournal::test_a_journal_holds_no_secret_and_no_value",)
#: Tests that send keys to another process on request.
_SENDS_KEYS: Final = ("::test_keys_travel_only_on_request_and_over_tls",)

#: Files that a test writes for boto to read, or that a child process reads: they are where secrets belong.
_FILES_WITH_SECRETS: Final = re.compile(
    r"(/\.aws/|(^|/)(credentials|config|environ|environment|process|tokens?|\.boto|ec2)([./]|$)|\.aws/sso/cache/|\.pyc$)"
)
#: Bytes of a file that are read.
_MAX_FILE_BYTES: Final = 8 * 1024 * 1024
#: Records of a test at DEBUG: a run over a thousand accounts prints the same ones for each.
_MAX_RECORDS: Final = 400
#: Outcomes of a test that are walked, each at first and then one of so many.
_MAX_OUTCOMES: Final = 20
_ONE_OF: Final = 200
#: Objects of one walk.
_MAX_OBJECTS: Final = 20_000
#: Key of what a worker of pytest-xdist hands to its controller.
_WORKER_OUTPUT: Final = "secret_scan"


class SecretScan:
    """The plugin: one for a session.

    Attributes:
        findings: what was found, by test.
        counts: how much was read, by channel.
    """

    def __init__(self) -> None:
        self.findings: dict[str, list[str]] = {}
        self.counts: Counter[str] = Counter()
        self._test = "outside of tests"
        self._records_left = self._outcomes = 0
        self._restore: Callable[[], None] = lambda: None
        self._handler = _Handler(self)
        self._undo = pytest.MonkeyPatch()

    # -- reading -----------------------------------------------------------------------------------------------------

    def read(self, channel: str, content: str | bytes, where: str = "") -> None:
        """Look for a marked secret in text or bytes."""
        self.counts[f"{channel} bytes"] += len(content)
        found = MARKED_TEXT.search(content) if isinstance(content, str) else _MARKED.search(content)
        if found is not None:
            shown = found[0][:12]
            self.findings.setdefault(self._test, []).append(
                f"{channel}{where}: a secret that begins with {shown!r} at {found.start()} of {len(content)}"
            )

    def read_objects(self, channel: str, roots: Iterable[object]) -> None:
        """Look for a marked secret in the strings that are reachable from objects."""
        for number, each in enumerate(reachable(roots, ends=_may_hold_secrets)):
            self.counts["objects"] += 1
            if isinstance(each, str | bytes):
                self.read(channel, each)
            if number >= _MAX_OBJECTS:
                self.counts["walks that were cut"] += 1
                return

    def record(self, record: logging.LogRecord) -> None:
        """Look for a marked secret in a record of the log."""
        self.counts["log records"] += 1
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += record.exc_text or logging.Formatter().formatException(record.exc_info)
        self.read("log", text, f" of {record.name}")
        self._records_left -= 1
        if self._records_left == 0:
            self._restore()

    def outcome(self, outcome: Outcome[Any]) -> None:
        """Look for a marked secret in what is reachable from an outcome."""
        self._outcomes += 1
        self.counts["outcomes"] += 1
        if self._test.endswith(_DELIBERATE):
            return
        if self._outcomes <= _MAX_OUTCOMES or self._outcomes % _ONE_OF == 0:
            self.read_objects("outcome", [outcome])

    def report(self, report: Report[Any]) -> None:
        """Look for a marked secret in the repr and messages of a report."""
        self.counts["reports"] += 1
        if self._test.endswith(_DELIBERATE):
            return
        self.read("report", f"{report!r} {report.summary()}")

    # -- hooks -------------------------------------------------------------------------------------------------------

    def pytest_sessionstart(self) -> None:
        logging.getLogger().addHandler(self._handler)
        self._patch_pickle()
        for kind in (Outcome, Succeeded):  # each dataclass has its own
            self._patch(kind, "__init__", lambda outcome: self.outcome(outcome))
        self._patch(Report, "__init__", lambda report: self.report(report))

        def readouterr(fixture: Any, *, read: Any = pytest.CaptureFixture.readouterr) -> Any:
            captured = read(fixture)
            for each in (captured.out, captured.err):
                self.read("output", each)
            return captured

        self._undo.setattr(pytest.CaptureFixture, "readouterr", readouterr)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._test, self._outcomes = item.nodeid, 0
        self._log_everything(item)
        try:
            return (yield)
        finally:
            self._restore()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.when == "teardown":
            for name, content in report.sections:
                if "log" not in name:  # the handler has read the records
                    self.read("output", content)
            found = self.findings.get(item.nodeid)
            if found and report.outcome == "passed":
                report.outcome = "failed"
                report.longrepr = "\n".join(["the test leaves a secret behind:", *found])
        return report

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        # pytest-xdist, at the controller: a worker that crashed has left no output, and fails the session by itself.
        self.merge(getattr(node, "workeroutput", {}).get(_WORKER_OUTPUT, {}))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._undo.undo()
        logging.getLogger().removeHandler(self._handler)
        factory = getattr(session.config, "_tmp_path_factory", None)
        self._test = "files"
        # The workers of pytest-xdist have folders of their own below the controller's, and read them.
        controls_workers = bool(session.config.getoption("dist", "no") != "no") and not _is_worker(session.config)
        if factory is not None and factory._basetemp is not None and not controls_workers:
            self.read_files(factory._basetemp)
        if _is_worker(session.config):
            output: dict[str, Any] = session.config.workeroutput  # type: ignore[attr-defined]
            output[_WORKER_OUTPUT] = {"findings": self.findings, "counts": dict(self.counts)}
        if self.findings and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        number = sum(map(len, self.findings.values()))
        read = ", ".join(f"{count:,} {what}" for what, count in sorted(self.counts.items()))
        terminalreporter.write_line(f"secret scan: {number} marked secrets found; read {read or 'nothing'}")
        for each in self.findings.get("files", []):
            terminalreporter.write_line(f"secret scan: {each}")

    # -- workers -----------------------------------------------------------------------------------------------------

    def merge(self, output: dict[str, Any]) -> None:
        """Add the findings and counts of a worker."""
        for test, found in output.get("findings", {}).items():
            self.findings.setdefault(test, []).extend(found)
        self.counts.update(output.get("counts", {}))

    # -- channels ----------------------------------------------------------------------------------------------------

    def read_files(self, root: Path) -> None:
        """Look for a marked secret in all files below a folder, except those that are there to hold some."""
        for path in root.rglob("*"):
            relative = path.relative_to(root).as_posix()
            if path.is_symlink() or not path.is_file() or _FILES_WITH_SECRETS.search(f"/{relative}"):
                continue
            self.counts["files"] += 1
            with path.open("rb") as file:
                self.read("file", file.read(_MAX_FILE_BYTES), f" {relative}")

    def _log_everything(self, item: pytest.Item) -> None:
        # A test that reads the log itself decides what is logged; and at DEBUG botocore signs in another way, which
        # tests of single modules are about. So all loggers print where the whole library runs.
        self._restore = lambda: None
        if "end_to_end" not in item.nodeid or "caplog" in getattr(item, "fixturenames", ()):
            return
        root, self._records_left = logging.getLogger(), _MAX_RECORDS
        logging_plugin: Any = item.config.pluginmanager.get_plugin("logging-plugin")
        # pytest keeps the records that it captures, and these would keep what they print alive.
        captures = [logging_plugin.caplog_handler, logging_plugin.report_handler] if logging_plugin else []
        levels = [(each, each.level) for each in (root, *captures)]

        def restore() -> None:
            for each, level in levels:
                each.setLevel(level)
            self._restore = lambda: None

        for each in captures:
            each.setLevel(max(each.level, root.level))
        root.setLevel(logging.DEBUG)
        self._restore = restore

    def _pickled(self, content: bytes) -> None:
        self.counts["pickles"] += 1
        if not self._test.endswith(_SENDS_KEYS):
            self.read("pickle", content)

    def _patch_pickle(self) -> None:
        def dumps(*arguments: Any, dumps: Any = pickle.dumps, **options: Any) -> bytes:
            pickled: bytes = dumps(*arguments, **options)
            self._pickled(pickled)
            return pickled

        def dump(value: Any, file: Any, *arguments: Any, dump: Any = pickle.dump, **options: Any) -> None:
            copied = io.BytesIO()
            dump(value, copied, *arguments, **options)
            self._pickled(copied.getvalue())
            file.write(copied.getvalue())

        self._undo.setattr(pickle, "dumps", dumps)
        self._undo.setattr(pickle, "dump", dump)

    def _patch(self, kind: type, name: str, after: Callable[[Any], None]) -> None:
        original = getattr(kind, name)

        def patched(instance: Any, *arguments: Any, **options: Any) -> None:
            original(instance, *arguments, **options)
            after(instance)

        self._undo.setattr(kind, name, patched)


class _Handler(logging.Handler):
    def __init__(self, scan: SecretScan) -> None:
        super().__init__()
        self._scan = scan

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record to the scan."""
        self._scan.record(record)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _may_hold_secrets(each: object) -> bool:
    return isinstance(each, Keys) or (type(each) is dict and "AWS_SECRET_ACCESS_KEY" in each)
