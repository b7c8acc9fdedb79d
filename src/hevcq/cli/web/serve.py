"""`hevcq serve`: the web page, its users, and programs' tokens."""

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
"""Packages of the extra `web`."""


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

    In an empty data folder it prints the address of the set-up, with a code for one use. Otherwise the
    first start on a terminal prints an address with a token that signs in; without a terminal (a
    journal, a container's log) use `hevcq serve new-token`. Encodes run in `hevcq worker`, on the same
    data folder or farm.
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


def missing(error: ModuleNotFoundError) -> UsageError:
    """Return the UsageError for a missing package of the extra `web`; raise any other error."""
    if (error.name or "").partition(".")[0] not in PACKAGES:
        raise error
    return UsageError(
        "The web page needs packages that are not installed.",
        remedy="Install them: `pipx install --force './hevcq[web]'` in the folder with your checkout, or"
        " `pip install 'hevcq[web]'` if you installed hevcq with pip.",
    )


tokens = group("Make, list and revoke programs' tokens.")
app.add_typer(tokens, name="token")


@app.command("add-user", cls=PlainCommand)
def add_user(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="User name.")],
    operator: Annotated[
        bool, typer.Option("--operator", help="May also run the farm: the board, all videos.")
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
    """Remove a user and sign them out.

    Their videos stay.
    """
    _users(ctx).remove(name)
    cli_of(ctx).echo(f"User {name} removed.")


@app.command(cls=PlainCommand)
def users(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the users."""
    listed = sorted(_users(ctx).all().values(), key=lambda user: user.name)
    for user in listed if as_json else ():
        render.emit_json({"type": "user", "name": user.name, "role": user.role.value})
    if listed and not as_json:
        render.emit_table(("user", "role"), [[user.name, user.role.value] for user in listed])
    if not listed:
        cli_of(ctx).echo("No users; `hevcq serve add-user NAME` adds one.")


@app.command("new-token", cls=PlainCommand)
def new_token(ctx: typer.Context) -> None:
    """Make a new sign-in token for `web.auth = "token"`.

    The old token and every session become invalid.
    """
    opened = _open_app(ctx)
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
            help="What it allows: read, upload, manage or operate (repeatable, default: read).",
        ),
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(
            "--owner",
            metavar="NAME",
            help="The user whose videos it can access (default: the only operator).",
        ),
    ] = None,
    days: Annotated[
        float,
        typer.Option(
            "--days", metavar="N", min=0.01, max=MAX_TOKEN_DAYS, help="Days until it expires."
        ),
    ] = TOKEN_DAYS,
) -> None:
    """Make a token for a program and print it.

    It is shown only once. Programs send it as `Authorization: Bearer TOKEN`.
    """
    from hevcq.web.identity.person import Scope

    try:
        scopes = {Scope(each) for each in scope or ["read"]}
    except ValueError as error:
        available = ", ".join(Scope)
        raise UsageError(
            f"Unknown scope in {', '.join(scope or ())}.", remedy=f"Use: {available}."
        ) from error
    app = _open_app(ctx)
    from hevcq.web.identity.accounts import ProgramTokens

    tokens = ProgramTokens(app.accounts, app.clock)
    render.emit(tokens.create(name, _owner(app, owner), scopes, days))


@tokens.command("list", cls=PlainCommand)
def list_tokens(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List programs' tokens and when they expire."""
    from hevcq.util.clock import SystemClock

    listed = sorted(_tokens(ctx).all().values(), key=lambda token: token.created)
    now, rows = SystemClock().now(), []
    for each in listed:
        scopes = ",".join(each.scopes)
        left = "expired" if each.expires <= now else f"{(each.expires - now) / 86400:.0f} days"
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
    revoked = _tokens(ctx).revoke(token)
    cli_of(ctx).echo(f"Token {revoked.token_id} ({printable(revoked.name)}) revoked.")


def _open_app(ctx: typer.Context) -> App:
    try:
        from hevcq.web.identity.accounts import Users as _  # noqa: F401 - asks for argon2
    except ModuleNotFoundError as error:
        raise missing(error) from error
    return ctx.with_resource(cli_of(ctx).app())


def _users(ctx: typer.Context) -> Users:
    app = _open_app(ctx)
    from hevcq.web.identity.accounts import Users

    return Users(app.accounts)


def _owner(app: App, named: str | None) -> str:
    """Return the owner of a new token. Raises UsageError for an unknown user: it would open nothing."""
    from hevcq.web.identity.accounts import Users
    from hevcq.web.identity.person import LOCAL_OWNER, Role

    if app.settings.web.auth != "users":
        return named or LOCAL_OWNER
    users = Users(app.accounts).all()
    operators = [name for name, user in users.items() if user.role is Role.OPERATOR]
    if named in users or (named is None and len(operators) == 1):
        return named or operators[0]
    raise UsageError(
        f"No user {named!r}." if named else "A token needs an owner.",
        remedy=f"Choose one with --owner: {', '.join(users) or '(hevcq serve add-user)'}.",
    )


def _tokens(ctx: typer.Context) -> ProgramTokens:
    app = _open_app(ctx)
    from hevcq.web.identity.accounts import ProgramTokens

    return ProgramTokens(app.accounts, app.clock)


def _password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise UsageError("No password on standard input.")
    return line
