"""Metric math of the simulated CloudWatch: arithmetic over the ids of a call, and SUM, AVG, MIN and MAX of a list."""

from __future__ import annotations

import ast
import operator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_Points: TypeAlias = list[tuple[int, float]]
_Value: TypeAlias = "float | dict[int, float] | list[dict[int, float]]"

_OPERATORS: Final[Mapping[type[ast.operator], Callable[[float, float], float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_FUNCTIONS: Final[Mapping[str, Callable[[list[float]], float]]] = {
    "SUM": sum,
    "AVG": lambda values: sum(values) / len(values),
    "MIN": min,
    "MAX": max,
}


def evaluate(expression: str, known: Mapping[str, _Points]) -> _Points:
    """Return the points of an expression over the results of other queries, in the order of time.

    Raises:
        ValueError: the expression is not of what the fleet simulates, or names an unknown id.
    """
    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError:
        raise ValueError("unsupported syntax") from None
    value = _evaluate(tree.body, {name: dict(points) for name, points in known.items()})
    if not isinstance(value, dict):
        raise ValueError("the expression is no time series")
    return sorted(value.items())


def _evaluate(node: ast.expr, known: Mapping[str, dict[int, float]]) -> _Value:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.Name):
        if node.id not in known:
            raise ValueError(f"unknown id {node.id}")
        return known[node.id]
    if isinstance(node, ast.List):
        items = [_evaluate(item, known) for item in node.elts]
        return [item for item in items if isinstance(item, dict)]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _combine(_OPERATORS[type(node.op)], _evaluate(node.left, known), _evaluate(node.right, known))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _call(node.func.id, [_evaluate(one, known) for one in node.args], known)
    raise ValueError("unsupported syntax")


def _call(name: str, arguments: list[Any], known: Mapping[str, dict[int, float]]) -> _Value:
    if name == "METRICS" and not arguments:
        return list(known.values())
    if name not in _FUNCTIONS or len(arguments) != 1 or not isinstance(arguments[0], list):
        raise ValueError(f"the simulated fleet cannot evaluate {name} of these arguments")
    series: list[dict[int, float]] = arguments[0]
    instants = sorted({instant for one in series for instant in one})
    return {instant: _FUNCTIONS[name]([one[instant] for one in series if instant in one]) for instant in instants}


def _combine(operation: Callable[[float, float], float], left: _Value, right: _Value) -> _Value:
    if isinstance(left, list) or isinstance(right, list):
        raise ValueError("arithmetic needs a time series or a number")
    if isinstance(left, float) and isinstance(right, float):
        return operation(left, right)
    instants = list(left if isinstance(left, dict) else right if isinstance(right, dict) else ())
    if isinstance(left, dict) and isinstance(right, dict):
        instants = [instant for instant in left if instant in right]
    combined: dict[int, float] = {}
    for instant in instants:
        first, second = (one[instant] if isinstance(one, dict) else one for one in (left, right))
        if operation is not operator.truediv or second:
            combined[instant] = operation(first, second)
    return combined
