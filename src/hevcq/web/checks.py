"""Check the page for `hevcq doctor`: address, sign-in, records of videos."""

from collections.abc import Iterator

from hevcq.errors import ConfigError
from hevcq.ports.videos import Accounts
from hevcq.running.doctor import machine_checks
from hevcq.settings.web import WebSettings
from hevcq.usecases.farm_check import Area, Check, Finding, examined
from hevcq.util.text import counted
from hevcq.web.identity.accounts import Users
from hevcq.web.identity.authentication import make_mode
from hevcq.web.identity.modes import OneToken
from hevcq.web.identity.oidc import Oidc
from hevcq.web.identity.person import Role
from hevcq.web.identity.session import configured_key
from hevcq.web.shield import is_loopback
from hevcq.wiring.app import App


def findings(app: App) -> list[Finding]:
    return list(examined([*machine_checks(app), *page_checks(app)]))


def page_checks(app: App) -> Iterator[Check]:
    """Yield the checks of the page; they ask the OpenID provider and the database.

    They listen on nothing and make no file.
    """
    yield Check(Area.CONFIG, "page", lambda: _address(app.settings.web))
    yield Check(Area.CONFIG, "sign-in", lambda: _sign_in(app))
    yield Check(Area.DATABASE, "videos", lambda: _videos(app))
    if app.settings.uploads_direct:
        yield Check(Area.CONFIG, "browsers", lambda: _browsers(app))


def refuse_open_doors(settings: WebSettings) -> None:
    """Raise ConfigError for a page that anybody in the network could use without a sign-in."""
    if settings.auth == "none" and not is_loopback(settings.host):
        raise ConfigError(
            f'web.auth = "none" is for this machine only, but web.host is {settings.host}.',
            remedy="Listen on 127.0.0.1, or choose another web.auth.",
        )


def _address(settings: WebSettings) -> str:
    """Return where the page is offered, and what people should know. Raises ConfigError."""
    refuse_open_doors(settings)
    words = [_shown(settings)]
    if is_loopback(settings.host):
        own = _shown(settings, url="").removeprefix("http://")
        return words[0] if not settings.url else f"{words[0]}, from {own}"
    if not settings.url.startswith("https://"):
        words.append("others in the network can reach it, unencrypted: see web.url")
    if not settings.url:
        words.append("by its address only: web.url gives no name")
    return "; ".join(words)


def _shown(settings: WebSettings, url: str | None = None) -> str:
    """Return the page's address: `url`, by default the configured one, or that of this machine."""
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    return (settings.url if url is None else url) or f"http://{shown}:{settings.port}"


def _sign_in(app: App) -> str:
    """Return who can sign in. Raises ConfigError, StorageError, Unavailable."""
    settings, accounts = app.settings.web, app.accounts
    if configured := settings.session_key.get_secret_value():
        configured_key(configured)
    mode = make_mode(settings, accounts, app.clock)
    match settings.auth:
        case "users":
            return _users(accounts)
        case "oidc":
            assert isinstance(mode, Oidc)
            mode.check_provider()
            return f"at {settings.oidc.issuer}, which answers{_operators(settings)}"
        case "proxy":
            peers = ", ".join(settings.trusted_proxies)
            return f"{settings.proxy_header} from {peers}{_operators(settings)}"
        case "token":
            made = "of the first start" if OneToken(accounts).exists() else "of the start to come"
            return f"with the token {made}"
        case "none":
            return "nobody needs to: this machine only"


def _users(accounts: Accounts) -> str:
    found = Users(accounts).all().values()
    if not found:
        raise ConfigError(
            f'web.auth is "users", but nobody is in {accounts.where}.',
            remedy="Add people: hevcq serve add-user NAME [--operator].",
        )
    operators = sum(user.role is Role.OPERATOR for user in found)
    return f"{counted(len(found), 'user')}, {operators or 'none'} of them operator{'' if operators == 1 else 's'}"


def _operators(settings: WebSettings) -> str:
    group = settings.oidc.operator_group if settings.auth == "oidc" else ""
    return "" if settings.operators or group else "; nobody is an operator: see web.operators"


def _browsers(app: App) -> str:
    """Return where browsers send and fetch videos. Raises ConfigError if a bucket forbids it."""
    origin = _shown(app.settings.web)
    if refused := list(app.video_files.refusals(origin)):
        raise ConfigError(
            " ".join(refused),
            remedy="Apply Terraform with that address as web.url, or add the rules of docs/farm/deploy.md"
            " to the bucket.",
        )
    return f"from {origin} straight to {', '.join(app.video_files.origins())}"


def _videos(app: App) -> str:
    """Return how many records there are. Raises ConfigError if the table is missing, Unavailable."""
    usage = app.videos.usage()
    table = f"{app.settings.aws.videos}: " if app.settings.on_aws else ""
    return f"{table}{usage.videos} uploaded, {usage.open_uploads} of them unfinished"
