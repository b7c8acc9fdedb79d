"""Write each Terraform module's README from its own variables and outputs.

Run as `python scripts/write_infra_docs.py`; with --check it only says which README is stale.
"""

import re
import sys
from pathlib import Path

INFRA = Path(__file__).resolve().parent.parent / "infra" / "terraform"
BLOCK = re.compile(r'^(variable|output) "([^"]+)" \{\n(.*?)^\}', re.MULTILINE | re.DOTALL)


def field(body: str, name: str) -> str:
    """Return a one-line attribute of a block, without its quotes; empty if it has none."""
    found = re.search(rf"^  {name}\s*=\s*(.+)$", body, re.MULTILINE)
    return found.group(1).strip().strip('"') if found else ""


def intro(module: Path) -> str:
    """Return the comment at the top of main.tf as a paragraph."""
    lines = []
    for line in (module / "main.tf").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines)


def table(module: Path, file: str, kind: str) -> list[str]:
    """Return a Markdown table of the blocks in a file."""
    path = module / file
    blocks = BLOCK.findall(path.read_text(encoding="utf-8")) if path.is_file() else []
    rows = []
    for found, name, body in blocks:
        if found != kind:
            continue
        cells = [f"`{name}`", field(body, "description")]
        if kind == "variable":
            default = re.search(r"^  default\s*=\s*(.+)$", body, re.MULTILINE)
            cells += [
                f"`{field(body, 'type').rstrip('({') or 'any'}`",
                f"`{default.group(1)}`" if default else "required",
            ]
        rows.append(f"| {' | '.join(cells)} |")
    head = ["| name | what | type | default |", "|---|---|---|---|"]
    if kind == "output":
        head = ["| name | what |", "|---|---|"]
    return [*head, *rows] if rows else ["none"]


def readme(module: Path) -> str:
    """Return the whole README of a module."""
    title = module.name if module != INFRA else "the farm"
    if module.parent.name == "examples":
        variables, outputs = (
            table(module, "main.tf", "variable"),
            table(module, "main.tf", "output"),
        )
    else:
        variables = table(module, "variables.tf", "variable")
        outputs = table(module, "outputs.tf", "output")
    text = [f"# {title}", "", intro(module), ""]
    extra = module / "USAGE.md"
    if extra.is_file():
        text += [extra.read_text(encoding="utf-8").strip(), ""]
    text += ["## Variables", "", *variables, "", "## Outputs", "", *outputs, ""]
    return "\n".join(text)


def main() -> int:
    """Write or check every README; return the exit code."""
    stale = []
    for module in [INFRA, *sorted(INFRA.glob("modules/*")), *sorted(INFRA.glob("examples/*"))]:
        path, text = module / "README.md", readme(module)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    for path in stale:
        print(f"{'stale' if '--check' in sys.argv else 'written'}: {path.relative_to(INFRA)}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
