"""`hevcq serve`: the web page, who may use it, and programs' tokens."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from hevcq.cli.context import AsJson, PlainCommand, cli_of, group
from hevcq.cli.output import render
from hevcq.errors import UsageError
from hevcq.settings.web import MAX_TOKEN_DAYS, TOKEN_DAYS
from hevcq.util.text import printable

if TYPE_CHECKING:
    from hevcq.web.identity.accounts import ProgramTokens, Users
    from hevcq.wiring.app import App

PACKAGES = frozenset({"argon2", "fastapi", "httpx2", "jinja2", "joserfc", "starlette", "uvicorn"})
"""What the extra `web` installs."""


app = group("Serve the web page until stopped.", invoke_without_command=True, no_args_is_help=False)


@app.callback()
def serve(
    ctx: typer.Context,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address to listen on (web.host).")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="N", help="Port to listen on (web.port)."),
    ] = None,
) -> None:
    """Serve the web page until stopped.

    In an empty data folder it prints the address of the set-up, with a code for one use. Else the first
    start on a terminal prints an address with a token that signs in, and `hevcq serve new-token` one
    elsewhere (a journal, a container's log). Encodes run in `hevcq worker`, on
    the same data folder or farm.
    """
    if ctx.invoked_subcommand is not None:
        return
    from hevcq.util.signals import StopSignals

    flags = {"web.host": ("--host", host), "web.port": ("--port", port)}
    cli = cli_of(ctx)
    with StopSignals() as signals, cli.app(**flags) as app:
        try:
            from hevcq.web.server import serve as serve_page
        except ModuleNotFoundError as error:
            raise missing(error) from error
        serve_page(app, signals, cli.warn, terminal=sys.stderr.isatty())


def missing(error: ModuleNotFoundError) -> Exception:
    """Return the sentence for a package of the extra that is not installed, else the error itself."""
    if (error.name or "").partition(".")[0] not in PACKAGES:
        return error
    return UsageError(
        "The web page needs packages that are not installed.",
        remedy="Install them: `pipx install --force './hevcq[web]'` in the folder with your checkout, or"
        " `pip install 'hevcq[web]'` where pip installed hevcq.",
    )


tokens = group("Make, list and revoke programs' tokens.")
app.add_typer(tokens, name="token")


@app.command("add-user", cls=PlainCommand)
def add_user(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The name that signs in.")],
    operator: Annotated[
        bool, typer.Option("--operator", help="They also run the farm: the board, all videos.")
    ] = False,
) -> None:
    """Add a user, or give one a new password.

    Asks for the password, or reads it from the first line of standard input. A new password ends the
    user's sessions. For `web.auth = "users"`.
    """
    from hevcq.web.identity.person import Role

    users = _users(ctx)
    password = _password()
    new = users.put(name, password, Role.OPERATOR if operator else Role.USER)
    cli_of(ctx).echo(f"User {name} {'added' if new else 'changed'}.")


@app.command("remove-user", cls=PlainCommand)
def remove_user(
    ctx: typer.Context, name: Annotated[str, typer.Argument(help="The user's name.")]
) -> None:
    """Remove a user, which signs them out.

    Their videos stay.
    """
    _users(ctx).remove(name)
    cli_of(ctx).echo(f"User {name} removed.")


@app.command(cls=PlainCommand)
def users(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the users."""
    found = sorted(_users(ctx).all().values(), key=lambda user: user.name)
    for user in found if as_json else ():
        render.emit_json({"type": "user", "name": user.name, "role": user.role.value})
    if found and not as_json:
        render.emit_table(("user", "role"), [[user.name, user.role.value] for user in found])
    if not found:
        cli_of(ctx).echo("No users; `hevcq serve add-user NAME` adds one.")


@app.command("new-token", cls=PlainCommand)
def new_token(ctx: typer.Context) -> None:
    """Make another sign-in token for `web.auth = "token"`.

    The former token and every session end.
    """
    opened = _opened(ctx)
    from hevcq.web.identity.modes import OneToken

    render.emit(OneToken(opened.accounts).new())


@tokens.command("create", cls=PlainCommand)
def create_token(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="What the token is for.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            metavar="SCOPE",
            help="What it allows: read, upload, manage or operate; may be repeated (default: read).",
        ),
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(
            "--owner",
            metavar="NAME",
            help="The user whose videos it is about (default: the only operator).",
        ),
    ] = None,
    days: Annotated[
        float,
        typer.Option(
            "--days", metavar="N", min=0.01, max=MAX_TOKEN_DAYS, help="Days until it ends."
        ),
    ] = TOKEN_DAYS,
) -> None:
    """Make a token for a program and print it.

    It is shown this once. Programs send it as `Authorization: Bearer TOKEN`.
    """
    from hevcq.web.identity.person import Scope

    try:
        scopes = {Scope(each) for each in scope or ["read"]}
    except ValueError as error:
        known = ", ".join(Scope)
        raise UsageError(
            f"Unknown scope in {', '.join(scope or ())}.", remedy=f"Use: {known}."
        ) from error
    app = _opened(ctx)
    from hevcq.web.identity.accounts import ProgramTokens

    tokens = ProgramTokens(app.accounts, app.clock)
    render.emit(tokens.create(name, _owner(app, owner), scopes, days))


@tokens.command("list", cls=PlainCommand)
def list_tokens(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List programs' tokens and when they end."""
    from hevcq.util.clock import SystemClock

    found = sorted(_tokens(ctx).all().values(), key=lambda token: token.created)
    now, rows = SystemClock().now(), []
    for each in found:
        scopes = ",".join(each.scopes)
        left = "ended" if each.expires <= now else f"{(each.expires - now) / 86400:.0f} days"
        rows.append([each.token_id, each.name, each.owner, scopes, left])
        if as_json:
            facts = {"id": each.token_id, "name": each.name, "owner": each.owner}
            render.emit_json(
                {"type": "token", **facts, "scopes": each.scopes, "expires": each.expires}
            )
    if rows and not as_json:
        render.emit_table(("token", "name", "owner", "scopes", "left"), rows)
    if not rows:
        cli_of(ctx).echo("No tokens.")


@tokens.command("revoke", cls=PlainCommand)
def revoke_token(
    ctx: typer.Context, token: Annotated[str, typer.Argument(help="Token id or prefix.")]
) -> None:
    """Revoke a program's token at once."""
    gone = _tokens(ctx).revoke(token)
    cli_of(ctx).echo(f"Token {gone.token_id} ({printable(gone.name)}) revoked.")


def _opened(ctx: typer.Context) -> App:
    try:
        from hevcq.web.identity.accounts import Users as _  # noqa: F401 - asks for argon2
    except ModuleNotFoundError as error:
        raise missing(error) from error
    return ctx.with_resource(cli_of(ctx).app())


def _users(ctx: typer.Context) -> Users:
    app = _opened(ctx)
    from hevcq.web.identity.accounts import Users

    return Users(app.accounts)


def _owner(app: App, named: str | None) -> str:
    """Return whose a token is. Raises UsageError for a user that is not there: it would open nothing."""
    from hevcq.web.identity.accounts import Users
    from hevcq.web.identity.person import LOCAL_OWNER, Role

    if app.settings.web.auth != "users":
        return named or LOCAL_OWNER
    users = Users(app.accounts).all()
    operators = [name for name, user in users.items() if user.role is Role.OPERATOR]
    if named in users or (named is None and len(operators) == 1):
        return named or operators[0]
    raise UsageError(
        f"There is no user {named!r}." if named else "A token belongs to a user.",
        remedy=f"Name one with --owner: {', '.join(users) or '(hevcq serve add-user)'}.",
    )


def _tokens(ctx: typer.Context) -> ProgramTokens:
    app = _opened(ctx)
    from hevcq.web.identity.accounts import ProgramTokens

    return ProgramTokens(app.accounts, app.clock)


def _password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise UsageError("No password on standard input.")
    return line
