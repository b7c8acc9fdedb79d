"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from hevcq.domain.verdict import FailureClass

AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON, one object per line (see docs/cli.md).")
]
EventsAsJson = Annotated[
    bool, typer.Option("--json", help="Print events on stdout, one JSON object per line.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print more.")]
ProfileNames = Annotated[
    list[str] | None,
    typer.Option("--profile", "-p", metavar="NAME", help="Only this profile (repeatable)."),
]
OfClass = Annotated[
    FailureClass | None,
    typer.Option(
        "--class",
        metavar="CLASS",
        help=f"Only this failure class: {', '.join(FailureClass)}.",
    ),
]
OfJob = Annotated[str | None, typer.Option("--job", metavar="ID", help="Job id or prefix.")]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Maximum number.")]

_RANGE = re.compile(r"\s*\[[^]]*[<>]=?[^]]*]$")


class PlainCommand(TyperCommand):
    """A command whose help names its arguments as a person types them, without types and ranges."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ARG002 - typer's signature
        """Return `[OPTIONS]` and the arguments, an optional one in brackets."""
        return [self.options_metavar or "", *(_as_typed(each) for each in _arguments(self))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options as two columns."""
        arguments = [(_as_typed(each), each.help or "") for each in _arguments(self)]
        options = [
            (record[0], _RANGE.sub("", record[1]))
            for each in self.get_params(ctx)
            if each.param_type_name == "option" and (record := each.get_help_record(ctx))
        ]
        for title, records in (("Arguments", arguments), ("Options", options)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def _arguments(command: TyperCommand) -> list[Any]:
    return [each for each in command.params if each.param_type_name == "argument"]


def _as_typed(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    many = "..." if argument.nargs != 1 else ""
    return f"{name}{many}" if argument.required else f"[{name}{many}]"
