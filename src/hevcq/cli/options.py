"""Options that several commands share, so that they read the same everywhere."""

import re
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from hevcq.domain.verdict import FailureClass


def group(sentence: str, **attributes: Any) -> typer.Typer:
    usual: dict[str, Any] = {"no_args_is_help": True, "rich_markup_mode": None}
    return typer.Typer(help=sentence, add_completion=False, **{**usual, **attributes})


AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON, one object per line (see docs/cli.md).")
]
EventsAsJson = Annotated[
    bool, typer.Option("--json", help="Print events on stdout, one JSON object per line.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print more.")]
IncludeGlobs = Annotated[
    list[str] | None,
    typer.Option("--include", metavar="GLOB", help="Only matching files (repeatable)."),
]
ExcludeGlobs = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="GLOB", help="Skip matching files (repeatable)."),
]
JobNames = typer.Argument(
    metavar="PATH|KEY|JOB", help="Files, folders, keys (a trailing `/` means all below) or job ids."
)
ProfileNames = Annotated[
    list[str] | None,
    typer.Option("--profile", "-p", metavar="NAME", help="Only this profile (repeatable)."),
]
QualityWanted = Annotated[
    str | None,
    typer.Option(
        metavar="VMAF",
        help="Search the CRF for this VMAF of the worst twentieth of frames: high (95), good (93), "
        "small (90), or a number.",
    ),
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

_REWORDED = (
    # typer 0.26 says it in click's words, later releases in pydantic's.
    (r"^'.*' is not a valid integer(?: range)?\.$", "must be a whole number."),
    (r"^'.*' is not a valid float(?: range)?\.$", "must be a number."),
    (r"^\S+ is not in the range x>=(\S+?)\.$", r"must be at least \1."),
    (r"^\S+ is not in the range x<=(\S+?)\.$", r"must be at most \1."),
    (r"^\S+ is not in the range (\S+?)<=x<=(\S+?)\.$", r"must be between \1 and \2."),
    (r"^Input should be a valid integer.*", "must be a whole number."),
    (r"^Input should be a valid number.*", "must be a number."),
    (r"^Input should be greater than or equal to (\S+)$", r"must be at least \1."),
    (r"^Input should be less than or equal to (\S+)$", r"must be at most \1."),
    (r"^Value error, ", ""),
)
_RANGE = re.compile(r"\s*\[[^]]*[<>]=?[^]]*]$")


class PlainCommand(TyperCommand):
    """A command whose help names its arguments as a person types them, without types and ranges."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ARG002 - typer's signature
        """Return `[OPTIONS]` and the arguments, an optional one in brackets."""
        return [self.options_metavar or "", *(_as_typed(each) for each in _arguments(self))]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; a wrong value is refused in words, whatever the library's are."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            for pattern, words in _REWORDED:
                error.message = re.sub(pattern, words, error.message or "")
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
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
