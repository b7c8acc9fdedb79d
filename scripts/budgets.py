"""Check the budgets of the house: file length, function length, parameters, sleeps in tests.

Run as `python scripts/budgets.py`; prints each breach as file:line and exits 1 if there is one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 40
MAX_PARAMETERS = 6
ROOT = Path(__file__).resolve().parent.parent
WAIVED: dict[str, str] = {}
"""At most two `file:function` waivers, each with its reason."""


def breaches() -> Iterator[str]:
    """Yield one line for every breach."""
    for path in sorted([*ROOT.glob("src/**/*.py"), *ROOT.glob("workers/*.py")]):
        yield from _file_breaches(path)
    for path in sorted(ROOT.glob("tests/**/*.py")):
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > MAX_FILE_LINES:
            yield f"{_name(path)}:1: {len(text.splitlines())} lines, at most {MAX_FILE_LINES}"
        if not {"acceptance", "chaos"} & set(path.parts):
            for number, line in enumerate(text.splitlines(), 1):
                if "time.sleep(" in line:
                    yield f"{_name(path)}:{number}: a test sleeps; hand time in instead"


def _file_breaches(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    if len(text.splitlines()) > MAX_FILE_LINES:
        yield f"{_name(path)}:1: {len(text.splitlines())} lines, at most {MAX_FILE_LINES}"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if f"{_name(path)}:{node.name}" in WAIVED:
            continue
        length = _body_lines(node)
        if length > MAX_FUNCTION_LINES:
            yield f"{_name(path)}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}"
        count = _parameters(node)
        if count > MAX_PARAMETERS and "cli" not in path.parts:
            yield f"{_name(path)}:{node.lineno}: {node.name} takes {count} parameters, at most {MAX_PARAMETERS}"


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = node.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) and len(body) > 1:
        body = body[1:]
    return (node.end_lineno or node.lineno) - body[0].lineno + 1


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len([name for name in names if name not in {"self", "cls"}])


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


if __name__ == "__main__":
    found = list(breaches())
    for line in found:
        print(line)
    sys.exit(1 if found else 0)
