"""A mutant as data: which code of which symbol becomes which other code, and which test must object.

Code is anchored to a symbol by its qualified name (`Lease.check`, `settle`, `SICK_AFTER`), wherever
below `src` it is defined, and compared as a syntax tree: a module may be moved or renamed, and its
code laid out anew, without an edit here.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import yaml

DATA = (".sql", ".yaml")
"""Endings of files that are data: a symbol with one of these names a file, wherever it lies."""
MODULE = re.compile(r"\b_\.")

Change = Callable[[], str]
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Named = dict[str, list[ast.stmt]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One planted bug.

    `symbol` holds `old`, an expression or a run of statements, or `text`, some words of its strings,
    exactly once; `new` takes its place, or nothing where it is empty. Where two symbols of one name
    hold it, `beside` names another symbol of the right module. In `old` and `new`, `_.name` is a name
    in any imported module: a module's own name may change. `test` is the name of a test function,
    with more words as pytest's `-k` takes them.
    """

    name: str
    symbol: str
    old: str = ""
    text: str = ""
    new: str = ""
    beside: str = ""
    test: str


def _read(page: Path) -> list[Mutant]:
    # Every value is a string: BaseLoader takes none for a number or a truth value.
    plain = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    listed = yaml.load(page.read_text(encoding="utf-8"), Loader=plain)
    return [Mutant(**one) for one in listed]


MUTANTS = tuple(
    mutant for page in sorted(Path(__file__).parent.glob("*.yaml")) for mutant in _read(page)
)


class Tree:
    """A tree of sources and tests: finds symbols and tests by name, wherever they are defined."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def mutated(self, mutant: Mutant) -> tuple[Path, str]:
        """Return the file that changes and what it becomes.

        Raises:
            ValueError: As `place`, or it changes nothing.
        """
        path, change = self.place(mutant)
        return path, change()

    def place(self, mutant: Mutant) -> tuple[Path, Change]:
        """Return the file that changes and what gives its changed content.

        Raises:
            ValueError: The mutant applies nowhere, or at more than one place.
        """
        found = [
            (path, change) for path in self._files(mutant) for change in _changes(mutant, path)
        ]
        if len(found) != 1:
            raise ValueError(f"{mutant.name}: applies {len(found)} times in {mutant.symbol}")
        return found[0]

    def _files(self, mutant: Mutant) -> list[Path]:
        if _is_data(mutant):
            return sorted((self.root / "src").rglob(mutant.symbol))
        return sorted(self._symbols[mutant.symbol] & self._symbols[mutant.beside or mutant.symbol])

    def selected(self, mutants: Sequence[Mutant]) -> tuple[str, ...]:
        """Return pytest's arguments for the tests of some mutants.

        Raises:
            ValueError: No test, or more than one, has the name that a mutant gives.
        """
        files = set()
        for mutant in mutants:
            found = self._tests[mutant.test.split()[0]]
            if len(found) != 1:
                raise ValueError(f"{mutant.name}: {len(found)} tests are called {mutant.test}")
            files |= found
        return (*sorted(files), "-k", " or ".join(f"({one.test})" for one in mutants))

    @cached_property
    def _symbols(self) -> defaultdict[str, set[Path]]:
        found: defaultdict[str, set[Path]] = defaultdict(set)
        for path in (self.root / "src").rglob("*.py"):
            for name in _named(ast.parse(path.read_bytes())):
                found[name].add(path)
        return found

    @cached_property
    def _tests(self) -> defaultdict[str, set[str]]:
        found: defaultdict[str, set[str]] = defaultdict(set)
        for path in (self.root / "tests").rglob("test_*.py"):
            for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M):
                found[name].add(path.relative_to(self.root).as_posix())
        return found


def _named(body: ast.Module | Definition, prefix: str = "") -> Named:
    """Return what a module, class or function defines, and all within, by qualified name."""
    found: defaultdict[str, list[ast.stmt]] = defaultdict(list)
    for statement in body.body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found[prefix + statement.name].append(statement)
                for name, within in _named(statement, f"{prefix}{statement.name}.").items():
                    found[name] += within
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[prefix + name].append(statement)
    return found


def _is_data(mutant: Mutant) -> bool:
    return mutant.symbol.endswith(DATA)


def _changes(mutant: Mutant, path: Path) -> Iterator[Change]:
    """Yield for each place in a file where the mutant applies what gives the file changed there."""
    source = path.read_text(encoding="utf-8")
    if _is_data(mutant):
        yield from (partial(_spliced, source, match, mutant) for match in _words(mutant, source))
        return
    tree = ast.parse(source)
    places = _in_strings if mutant.text else _in_code
    for symbol in _named(tree).get(mutant.symbol, ()):
        for spelled in _spellings(mutant, tree):
            for change in places(symbol, spelled):
                yield partial(_unparsed, source, _outermost(tree, symbol), change)


def _outermost(tree: ast.Module, symbol: ast.stmt) -> ast.stmt:
    return next(each for each in reversed(tree.body) if each.lineno <= symbol.lineno)


def _spellings(mutant: Mutant, tree: ast.Module) -> Iterator[Mutant]:
    """Yield the mutant with each imported name for its `_`; as it is, if it has none."""
    if not MODULE.search(mutant.old):
        yield mutant
        return
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for name in (alias.asname or alias.name for alias in statement.names):
                old, new = (MODULE.sub(f"{name}.", code) for code in (mutant.old, mutant.new))
                yield replace(mutant, old=old, new=new)


def _unparsed(source: str, statement: ast.stmt, change: Callable[[], None]) -> str:
    """Return the source with one statement of its module changed; all others stay as they are."""
    lines, before = source.splitlines(), ast.unparse(statement)
    change()
    after = ast.unparse(statement)
    compile(after, "mutant", "exec")
    if after == before:
        raise ValueError(f"nothing is changed in {before}")
    first = min(each.lineno for each in (statement, *getattr(statement, "decorator_list", ())))
    return "\n".join([*lines[: first - 1], after, *lines[statement.end_lineno :]])


def _words(mutant: Mutant, text: str) -> Iterator[re.Match[str]]:
    """Find the mutant's words in a text, however they are broken into lines there."""
    return re.finditer(r"\s+".join(map(re.escape, mutant.text.split())), text)


def _spliced(text: str, match: re.Match[str], mutant: Mutant) -> str:
    return text[: match.start()] + mutant.new + text[match.end() :]


def _in_strings(symbol: ast.stmt, mutant: Mutant) -> Iterator[Callable[[], None]]:
    for node in ast.walk(symbol):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for match in _words(mutant, node.value):
                changed = _spliced(node.value, match, mutant)
                yield partial(setattr, node, "value", changed)


def _in_code(symbol: ast.stmt, mutant: Mutant) -> Iterator[Callable[[], None]]:
    match ast.parse(mutant.old).body, ast.parse(mutant.new).body:
        case [ast.Expr(value=before)], [ast.Expr(value=after)]:
            yield from _in_lists(symbol, [before], [after])
            yield from _in_fields(symbol, before, after)
        case old, new:
            yield from _in_lists(symbol, old, new)


def _in_lists(
    symbol: ast.stmt, old: Sequence[ast.AST], new: Sequence[ast.AST]
) -> Iterator[Callable[[], None]]:
    for parent in ast.walk(symbol):
        for _, values in ast.iter_fields(parent):
            if isinstance(values, list):
                for start in range(len(values) - len(old) + 1):
                    run = slice(start, start + len(old))
                    if all(map(_same, values[run], old)):
                        left = new or ([] if len(values) > len(old) else [ast.Pass()])
                        yield partial(values.__setitem__, run, left)


def _in_fields(symbol: ast.stmt, old: ast.expr, new: ast.expr) -> Iterator[Callable[[], None]]:
    for parent in ast.walk(symbol):
        for name, value in ast.iter_fields(parent):
            if _same(value, old):
                yield partial(setattr, parent, name, new)


def _same(one: object, other: object) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, ast.AST):
        return all(_same(getattr(one, n, None), getattr(other, n, None)) for n in one._fields)
    return one == other
