"""The words: docstrings, comments and messages are plain technical English, and names are the field's terms."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

#: A program is nobody's person, and does nothing that only a person does.
PERSONS = "nobody somebody anybody everybody whoever he him his himself"
VERBS = "say says said tell tells told ask asks asked asking stand stands lean leans lend lends lent"
PHRASES = "for ever|as a default|shall"

#: Names and images that the standard terms replaced: words of prose, in any case.
IMAGES = (
    "gently volley drought newcomer newcomers doors door floor floors house room rooms budget budgets doubtful "
    "weather told scrub"
)
#: Identifiers that the standard terms replaced.
OLD_NAMES = (
    "Gate Way Caller Doors Newcomer Budgets Budget Passage Line Draw Refused Learning Pace Doubt Limit BudgetExhausted "
    "BudgetStatistics Home Life Bell own_copy scrub as_failure fewer_collections quiet_botocore denial_said "
    "caller_said said said_as Asked Asker Place SourceIdentity SlotIdentity RoleTokens OpenSource OpenParts Lender "
    "lend LentClient Leases Core cores NOBODY examine Found Slot Plans reached run_aside give_turn Answers Settlement "
    "Board Score GRACE ASIDE passes_by_itself why_unavailable why_unreachable Front Seen Weather strikes is_wide "
    "is_shut gently make_room places"
)

#: The name of an option, `--ask-above`, is no word of a sentence.
WORDS = re.compile(rf"(?<!--)\b({'|'.join(f'{PERSONS} {VERBS} {IMAGES}'.split())}|{PHRASES})\b", re.IGNORECASE)

#: What is allowed all the same: file, the text around the word, and why. At most 20 lines.
ALLOWED: tuple[tuple[str, str, str], ...] = ()


class Finding(NamedTuple):
    """A word of the list, and the line that holds it."""

    path: str
    line: int
    word: str
    text: str


def prose(source: str, *, messages: bool) -> Iterator[tuple[int, str]]:
    """Return comments and docstrings with their line; with `messages` every string that looks like a sentence."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            is_docstring = id(node) in docstrings
            if is_docstring or (messages and " " in node.value.strip()):
                for offset, line in enumerate(node.value.splitlines()):
                    yield node.lineno + (offset if is_docstring else 0), line


def findings(path: str, source: str, *, messages: bool) -> list[Finding]:
    """Return the words of the list in a Python file."""
    return [
        Finding(path, number, match[0], text.strip())
        for number, text in prose(source, messages=messages)
        for match in WORDS.finditer(text)
        if not any(path == file and around in text for file, around, _ in ALLOWED)
    ]


def tracked(*patterns: str) -> list[str]:
    """Return the tracked files that match."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.splitlines() if (ROOT / name).exists() and name != "tests/test_words.py"]


@pytest.mark.parametrize("path", tracked("*.py"))
def test_sentences_are_plain(path: str) -> None:
    """No word of the list in a docstring or comment; in the package, its examples and benchmarks also in messages."""
    source = (ROOT / path).read_text(encoding="utf-8")

    found = findings(path, source, messages=not path.startswith("tests/"))

    assert not found, "\n".join(f"{each.path}:{each.line}: {each.word!r} in: {each.text}" for each in found)


@pytest.mark.parametrize("path", tracked("*.md"))
def test_pages_are_plain(path: str) -> None:
    """The same words, in README and the other pages; blocks of code count as well."""
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()

    found = [(number, match[0]) for number, line in enumerate(lines, 1) for match in WORDS.finditer(line)]

    assert not found


@pytest.mark.parametrize("path", tracked("asyncauth/*.py"))
def test_names_are_the_fields_own(path: str) -> None:
    """No class, function, attribute or constant of the package bears a name that a standard term replaced."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    names: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names[node.name.lstrip("_")] += 1
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names[node.id.lstrip("_")] += 1
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names[node.attr.lstrip("_")] += 1

    assert not set(OLD_NAMES.split()) & names.keys()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('"""The gate lets whoever asks in."""', ["whoever", "asks"]),
        ("x = 1  # nobody leans on this for ever", ["nobody", "leans", "for ever"]),
        ('raise ValueError(f"the pool {name} was told to stop")', ["told"]),
        ('"""Returns what AWS answered; a sofa is no house of his."""', ["house", "his"]),
        ('"""Essays and tasks, askew, therefore."""\nname = "ask"', []),
    ],
)
def test_a_planted_sentence_is_found(source: str, words: list[str]) -> None:
    """The check finds whole words, in docstrings, comments and parts of f-strings, and nothing inside other words."""
    assert sorted(each.word for each in findings("planted.py", source, messages=True)) == sorted(words)


def test_the_list_of_exceptions_is_short_and_used() -> None:
    """At most twenty exceptions, each with its reason, each still needed."""
    assert len(ALLOWED) <= 20
    for path, around, reason in ALLOWED:
        assert reason
        assert around in (ROOT / path).read_text(encoding="utf-8")
