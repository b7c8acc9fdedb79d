"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

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
