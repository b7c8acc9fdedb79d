"""`hevcq service`: look after the libraries until stopped; install that as a systemd unit."""

from __future__ import annotations

import getpass
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hevcq.cli.context import Cli, cli_of
from hevcq.cli.options import EventsAsJson, PlainCommand
from hevcq.errors import HevcqError, UsageError

if TYPE_CHECKING:
    from hevcq.usecases.libraries.systemd_unit import Unit
    from hevcq.wiring.app import App

app = typer.Typer(
    help="Look after the libraries of the settings until stopped.",
    invoke_without_command=True,
    rich_markup_mode=None,
    add_completion=False,
)
System = Annotated[
    bool, typer.Option("--system/--user", help="For the whole machine, or for you (default).")
]


@app.callback()
def service(ctx: typer.Context, as_json: EventsAsJson = False) -> None:
    """Look after the libraries of the settings until stopped.

    Encodes new videos of the libraries by their rules, runs workers, deletes kept originals when
    their time is over, and serves the page where it is installed. SIGHUP reads the settings again;
    SIGTERM or Ctrl-C gives running encodes stop_grace_s seconds to finish.
    """
    if ctx.invoked_subcommand is None:
        _run(cli_of(ctx), as_json=as_json)


def _run(cli: Cli, *, as_json: bool) -> None:
    from hevcq.cli.output.live import open_display
    from hevcq.domain.events import EventName, IngestEvent
    from hevcq.settings.model import Settings
    from hevcq.util.systemd import notifier_of
    from hevcq.wiring.app import stop_signals
    from hevcq.wiring.service import Outlets, Service

    reload = threading.Event()

    def load() -> Settings:
        return cli.loaded().settings

    with stop_signals(reload) as signals, cli.app() as opened:
        display = open_display(
            opened.clock, as_json=as_json, quiet=cli.quiet, verbose=cli.verbose, terminal=False
        )

        def emit(event: IngestEvent) -> None:
            if as_json or cli.verbose or event.event is not EventName.SCAN_STARTED:
                display(event)

        notifier = notifier_of(os.environ, os.getpid(), opened.clock)
        with display:
            running = Service(opened, signals, Outlets(emit, cli.echo, notifier), reload, load)
            names = [each.name for each in opened.settings.libraries if each.watch]
            ends = "; Ctrl-C stops" if sys.stderr.isatty() else ""
            cli.echo(f"Looking after {', '.join(names) or 'no library'}{ends}.")
            end_page = _serve_page(opened, cli) if opened.settings.service.page else None
            try:
                running.run()
            finally:
                if end_page is not None:
                    end_page()
        cli.echo("Stopped.")


def _serve_page(opened: App, cli: Cli) -> Callable[[], None] | None:
    """Serve the page in a thread, if its packages are there; return what ends it."""
    from hevcq.wiring.app import stop_signals
    from hevcq.wiring.service import PAGE_ENDS_S

    try:
        from hevcq.web.server import serve
    except ModuleNotFoundError:
        return None
    _ = opened.backend, opened.catalog, opened.profiles, opened.encoder  # opened by one thread
    stop = stop_signals()  # of its own: a page that fails must not end the encodes

    def run() -> None:
        try:
            serve(opened, stop, cli.echo, terminal=sys.stderr.isatty())
        except HevcqError as error:
            cli.echo(f"The page is not served: {error}")

    thread = threading.Thread(target=run, name="hevcq-page", daemon=True)
    thread.start()

    def end() -> None:
        stop.ask()
        thread.join(PAGE_ENDS_S)

    return end


@app.command("install", cls=PlainCommand)
def install(
    ctx: typer.Context,
    system: System = False,
    account: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="With --system: the user it runs as.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the unit, change nothing.")
    ] = False,
) -> None:
    """Write a systemd unit that runs the service.

    Says how to start it. A unit for the machine may write only the data folder and the libraries;
    install it again after a library was added.
    """
    from hevcq.usecases.libraries import systemd_unit as units

    cli = cli_of(ctx)
    if account and not system:
        raise UsageError("--as only works with --system; a unit of your own runs as you.")
    unit = _unit(cli, system=system, account=account, writes=not dry_run)
    file = units.unit_file(system=system, config_home=_config_home())
    if dry_run:
        typer.echo(unit.text(), nl=False)
        cli.echo(f"This would be {file}.")
        return
    changed = units.install(file, unit.text())
    who = f"as {unit.account}" if system else "as you, while you are logged in"
    cli.echo(f"{'Wrote' if changed else 'Nothing to change in'} {file}.")
    cli.echo(f"It runs `hevcq service` {who}, at the lowest priority, restarted when it fails.")
    if not unit.settings.libraries:
        cli.echo("There is no library yet; `hevcq libraries add PATH` adds one.")
    mine = "" if system else " --user"
    cli.echo(f"Next: systemctl{mine} daemon-reload && systemctl{mine} enable --now hevcq")
    if not system:
        cli.echo('Also when you are logged out: loginctl enable-linger "$USER"')
    cli.echo(f"What it does: journalctl{mine} -u hevcq -f")
    cli.echo(f"After a change of the settings: systemctl{mine} reload hevcq")


@app.command("uninstall", cls=PlainCommand)
def uninstall(ctx: typer.Context, system: System = False) -> None:
    """Remove the systemd unit; libraries, settings and data stay."""
    from hevcq.usecases.libraries import systemd_unit as units

    cli = cli_of(ctx)
    file = units.unit_file(system=system, config_home=_config_home())
    if not units.uninstall(file):
        cli.echo(f"There is no {file}.")
        return
    mine = "" if system else " --user"
    cli.echo(f"Removed {file}.")
    cli.echo(f"Next: systemctl{mine} stop hevcq; systemctl{mine} daemon-reload")


def _unit(cli: Cli, *, system: bool, account: str | None, writes: bool) -> Unit:
    from hevcq.settings.edit import own_file
    from hevcq.usecases.libraries.systemd_unit import Unit

    by_sudo = os.environ.get("SUDO_USER", "")
    if system and writes and os.geteuid() != 0:
        raise UsageError(
            "Only root can write a unit for the whole machine.",
            remedy="Run `hevcq service install --system --dry-run | sudo tee"
            " /etc/systemd/system/hevcq.service`: it then runs as you.",
        )
    if system and by_sudo and not (cli.config and cli.data_dir and account):
        raise UsageError(
            "With sudo these would be root's settings.",
            remedy="Name the settings, data folder and user: hevcq --config FILE --data-dir DIR service"
            f" install --system --as {by_sudo}.",
        )
    settings, called = cli.loaded().settings, sys.argv[0]
    program = Path(called if "/" in called else shutil.which(called) or called).absolute()
    words = [str(program), "--data-dir", str(settings.data_dir)]
    file = own_file(cli.config)
    if file.is_file():
        words += ["--config", str(file)]
    who = (account or getpass.getuser()) if system else ""
    return Unit((*words, "service"), settings, who)


def _config_home() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
