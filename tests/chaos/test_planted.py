"""The mutants still apply to this tree, wherever its files lie, and tests see a sample of them."""

import ast

import pytest

from chaos.mutants.mutant import DATA, MUTANTS, Mutant, Tree
from chaos.mutants.trial import ROOT, Fate, copied, run_pytest, try_mutant

SAMPLE = {"poison tried again", "a key with .. accepted", "unknown counted as passed"}
SAMPLES = [mutant for mutant in MUTANTS if mutant.name in SAMPLE]
HERE = Tree(ROOT)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_applies_once_and_names_a_test_that_is_there(mutant):
    path, changed = HERE.mutated(mutant)

    assert changed != path.read_text()
    assert HERE.selected([mutant])


def test_there_are_enough_of_them_and_no_two_have_one_name():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 173


def renamed(path, modules):
    """A module as a tool writes it anew, with each module that it imports under another name."""
    tree, names = ast.parse(path.read_bytes()), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if f"{node.module}.{alias.name}" in modules:
                    names.add(alias.asname or alias.name)
                    alias.asname = f"new_{alias.asname or alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in names:
            node.id = f"new_{node.id}"
    return ast.unparse(tree)


def test_moved_renamed_and_newly_laid_out_files_need_no_edit(tmp_path):
    sources, moved = sorted((ROOT / "src").rglob("*.py")), {}
    modules = {".".join(path.relative_to(ROOT / "src").with_suffix("").parts) for path in sources}
    places = {mutant: HERE.place(mutant)[0] for mutant in MUTANTS}
    changing = set(places.values())
    for number, path in enumerate(sources):
        moved[path] = tmp_path / f"src/room{number % 7}/module{number}.py"
        moved[path].parent.mkdir(parents=True, exist_ok=True)
        moved[path].write_text(renamed(path, modules) if path in changing else path.read_text())
    # A file of data is found by its name, so that alone stays.
    for path in (path for ending in DATA for path in (ROOT / "src").rglob(f"*{ending}")):
        moved[path] = tmp_path / "src/data" / path.name
        moved[path].parent.mkdir(exist_ok=True)
        moved[path].write_bytes(path.read_bytes())
    for number, path in enumerate(sorted((ROOT / "tests").rglob("test_*.py"))):
        test = tmp_path / f"tests/room{number % 7}/test_{number}.py"
        test.parent.mkdir(parents=True, exist_ok=True)
        test.write_bytes(path.read_bytes())
    elsewhere = Tree(tmp_path)

    for mutant in MUTANTS:
        assert elsewhere.place(mutant)[0] == moved[places[mutant]]
        *files, _, words = elsewhere.selected([mutant])
        assert (len(files), words) == (1, f"({mutant.test})")


@pytest.fixture
def tiny(tmp_path):
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "a.py").write_text(
        "class A:\n    def f(self):\n        return g(1,\n            1)\n"
    )
    (folder / "b.py").write_text("B = 1\ndef h():\n    x = 1\n    y = 'a  big\\nword'\n")
    (folder / "c.py").write_text("C = 1\ndef h():\n    x = 1\n    x += 1\n")
    (folder / "rows.sql").write_text("SELECT a\n  FROM b;\n")
    return Tree(tmp_path)


@pytest.mark.parametrize(
    ("symbol", "old", "new", "becomes"),
    [
        ("A.f", "g(1, 1)", "None", "return None"),
        ("A.f", "return g(1, 1)", "", "pass"),
        ("h", "x = 1\nx += 1", "x += 1\nx = 1", "x += 1\n    x = 1"),
        ("h", "x += 1", "", "def h():\n    x = 1"),
    ],
)
def test_code_is_found_however_it_is_laid_out(tiny, symbol, old, new, becomes):
    _, changed = tiny.mutated(Mutant(name="x", symbol=symbol, old=old, new=new, test=""))

    assert changed.endswith(becomes)


def test_words_are_found_in_strings_and_in_data_files_however_they_are_broken(tiny):
    _, changed = tiny.mutated(Mutant(name="x", symbol="h", text="big word", new="dog", test=""))
    assert changed.endswith("y = 'a  dog'")

    _, changed = tiny.mutated(Mutant(name="x", symbol="rows.sql", text="a FROM b", test=""))
    assert changed == "SELECT ;\n"


@pytest.mark.parametrize(
    ("symbol", "old", "times"),
    [("A.f", "1", 2), ("A.f", "2", 0), ("A.g", "1", 0), ("h", "x = 1", 2)],
)
def test_code_that_is_not_there_once_is_refused(tiny, symbol, old, times):
    with pytest.raises(ValueError, match=f"applies {times} times"):
        tiny.mutated(Mutant(name="x", symbol=symbol, old=old, new="3", test=""))


def test_of_two_symbols_of_one_name_a_neighbour_tells_which(tiny):
    path, _ = tiny.mutated(Mutant(name="x", symbol="h", old="x = 1", beside="C", test=""))

    assert path.name == "c.py"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    with copied(ROOT, tmp_path_factory.mktemp("planted")) as copy:
        yield copy


def test_without_a_mutant_the_copy_is_green(tree):
    ran = run_pytest(tree.root, tree.selected(SAMPLES))
    assert ran.code == 0, ran.output


@pytest.mark.parametrize("mutant", SAMPLES, ids=lambda mutant: mutant.name)
def test_a_mutant_of_the_sample_is_caught(tree, mutant):
    trial = try_mutant(mutant, tree, SAMPLES.index(mutant))
    assert trial.fate is Fate.CAUGHT, trial
    assert trial.by.startswith("test_")


def test_a_change_that_is_no_bug_survives(tree):
    harmless = Mutant(
        name="none",
        symbol="handling",
        old="isinstance(error, (PermanentError, BadKey))",
        new="isinstance(error, (BadKey, PermanentError))",
        test="test_each_error_is_handled_and_classed_as_the_table_says",
    )
    assert try_mutant(harmless, tree, len(SAMPLES)).fate is Fate.SURVIVED
