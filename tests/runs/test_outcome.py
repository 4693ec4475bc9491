"""Outcomes: what their text, repr and rows show, whatever the error or value is."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncauth._models import Account
from asyncauth._runs import Outcome, Report, Succeeded

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
ACCOUNT = Account("111111111111", name="prod")


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def failed(error: Exception, **fields: Any) -> Outcome[None]:
    return Outcome(ACCOUNT, "us-east-1", "failed", "job", error=error, attempts=1, **fields)


class TestText:
    @pytest.mark.parametrize(
        ("error", "shown"),
        [
            (KeyError("InstanceId"), "KeyError: 'InstanceId'"),
            (TimeoutError(), "TimeoutError"),
            (ValueError("\n\nfirst\nsecond"), "ValueError: first"),
            (ValueError("tried, in this order:\n  - this\nGive one"), "ValueError: tried, in this order: ... Give one"),
            (ValueError("this:"), "ValueError: this:"),
            (NoText(), "NoText: (its __str__ raises RuntimeError)"),
            (
                ExceptionGroup("all", [KeyError("x"), OSError()]),
                "ExceptionGroup: all (2 sub-exceptions): KeyError: 'x'",
            ),
        ],
    )
    def test_it_has_class_and_first_line_of_the_error(self, error: Exception, shown: str) -> None:
        """`print(outcome)` is enough to know why a target failed."""
        assert str(failed(error, elapsed=0.5)) == (
            f"111111111111 prod us-east-1 failed in job: {shown} (1 attempt, 0.500 s)"
        )

    def test_it_has_the_reason_of_a_skipped_target(self) -> None:
        """Also if AWS's refusal is kept as the error."""
        outcome = Outcome(ACCOUNT, "us-east-1", "skipped", "job", error=KeyError("x"), reason="dry run", elapsed=0.25)

        assert str(outcome) == "111111111111 prod us-east-1 skipped in job: dry run (0 attempts, 0.250 s)"
        assert str(Outcome(ACCOUNT, "us-east-1", "succeeded", "job", value=1, attempts=2, elapsed=1)) == (
            "111111111111 prod us-east-1 succeeded (2 attempts, 1.000 s)"
        )

    def test_the_repr_has_neither_value_nor_message(self) -> None:
        """Values can be large, and messages of a job's errors can hold secrets."""
        shown = repr(Outcome(ACCOUNT, "us-east-1", "failed", "job", error=KeyError(SECRET), attempts=2))

        assert shown == "<Outcome 111111111111 us-east-1 failed in job (KeyError), 2 attempts, 0.000 s>"

    @given(st.text(max_size=2_000), st.text(max_size=2_000))
    def test_hostile_text_is_one_short_printable_line(self, message: str, code: str) -> None:
        """No escape sequence, line end or unbounded text of an error, code, reason or name is shown as it is."""
        account = Account("111111111111", name=message or None)
        texts: list[object] = []
        for outcome in (
            Outcome(account, "us-east-1", "failed", error=ValueError(message), error_code=code),
            Outcome(account, "us-east-1", "skipped", reason=message, error_code=code),
        ):
            texts += [str(outcome), repr(outcome), *outcome.row().values()]

        for text in texts:
            assert not isinstance(text, str) or (text.isprintable() and len(text) <= 600)


class TestRow:
    def test_the_value_is_json_text(self) -> None:
        """Each row is flat; None is JSON's null, and a target without a value has none."""
        value = {"ids": ["i-1"], "n": -1.5, "text": "\x1b[2J"}

        row = Outcome(ACCOUNT, "us-east-1", "succeeded", value=value).row()

        assert json.loads(row["value"]) == value
        assert row["value"].isprintable()
        assert Outcome(ACCOUNT, "us-east-1", "succeeded").row()["value"] == "null"
        assert failed(KeyError()).row()["value"] is None

    @pytest.mark.parametrize(
        ("value", "name"), [({1, 2}, "set"), (float("nan"), "float"), ({("a", "b"): 1}, "dict"), (b"x", "bytes")]
    )
    def test_a_value_that_is_not_json_is_the_name_of_its_type(self, value: object, name: str) -> None:
        """Whatever the value is, its row can be written."""
        assert Outcome(ACCOUNT, "us-east-1", "succeeded", value=value).row()["value"] == name

    def test_a_value_that_contains_itself_is_not_json(self) -> None:
        """Neither a circle nor a deep list ends the report."""
        circle: list[object] = []
        circle.append(circle)
        deep: list[object] = []
        for _ in range(100_000):
            deep = [deep]

        assert Outcome(ACCOUNT, "us-east-1", "succeeded", value=circle).row()["value"] == "list"
        assert Outcome(ACCOUNT, "us-east-1", "succeeded", value=deep).row()["value"] == "list"
        while deep:
            deep = deep.pop()  # type: ignore[assignment]


def test_an_outcome_that_succeeded_is_of_its_own_class() -> None:
    """Whatever makes it, an outcome is a `Succeeded` if and only if its status is `succeeded`."""
    account = Account("123456789012")

    by_position = Outcome(account, "eu-west-1", "succeeded", "job", 7)
    by_name = Outcome(account=account, region_name="eu-west-1", status="succeeded", phase="job", value=7)
    refused: Outcome[int] = Outcome(account, "eu-west-1", "failed")

    assert type(by_position) is type(by_name) is Succeeded
    assert by_position == by_name
    assert hash(by_position) == hash(by_name)
    assert pickle.loads(pickle.dumps(by_position)) == by_position
    assert type(refused) is Outcome
    assert Report((by_position, refused)).succeeded == (by_name,)
