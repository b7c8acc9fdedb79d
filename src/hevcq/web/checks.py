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
    """Yield the checks of the page. They ask the OpenID provider and the database.

    They bind no address and create no file.
    """
    yield Check(Area.CONFIG, "page", lambda: _address(app.settings.web))
    yield Check(Area.CONFIG, "sign-in", lambda: _sign_in(app))
    yield Check(Area.DATABASE, "videos", lambda: _videos(app))
    if app.settings.uploads_direct:
        yield Check(Area.CONFIG, "browsers", lambda: _browsers(app))


def require_loopback_or_sign_in(settings: WebSettings) -> None:
    """Raise ConfigError if anybody on the network could use the page without a sign-in."""
    if settings.auth == "none" and not is_loopback(settings.host):
        raise ConfigError(
            f'web.auth = "none" is for this machine only, but web.host is {settings.host}.',
            remedy="Listen on 127.0.0.1, or choose another web.auth.",
        )


def _address(settings: WebSettings) -> str:
    """Return the page's address, and its risks in words. Raises ConfigError."""
    require_loopback_or_sign_in(settings)
    words = [_page_address(settings)]
    if is_loopback(settings.host):
        return words[0] if not settings.url else f"{words[0]}, from {_listen_address(settings)}"
    if not settings.url.startswith("https://"):
        words.append("anyone on the network can reach it, unencrypted: see web.url")
    if not settings.url:
        words.append("only by its IP address: web.url gives no name")
    return "; ".join(words)


def _page_address(settings: WebSettings) -> str:
    return settings.url or f"http://{_listen_address(settings)}"


def _listen_address(settings: WebSettings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{settings.port}"


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
            which = (
                "of the first start"
                if OneToken(accounts).exists()
                else "that the first start prints"
            )
            return f"with the token {which}"
        case "none":
            return "nobody needs to: this machine only"


def _users(accounts: Accounts) -> str:
    users = Users(accounts).all().values()
    if not users:
        raise ConfigError(
            f'web.auth is "users", but {accounts.where} has no user.',
            remedy="Add a user: hevcq serve add-user NAME [--operator].",
        )
    operators = sum(user.role is Role.OPERATOR for user in users)
    return f"{counted(len(users), 'user')}, {operators or 'no'} operator{'' if operators == 1 else 's'}"


def _operators(settings: WebSettings) -> str:
    group = settings.oidc.operator_group if settings.auth == "oidc" else ""
    return "" if settings.operators or group else "; nobody is an operator: see web.operators"


def _browsers(app: App) -> str:
    """Return where browsers send and fetch videos. Raises ConfigError if a bucket's rules forbid it."""
    origin = _page_address(app.settings.web)
    if refused := list(app.video_files.refusals(origin)):
        raise ConfigError(
            " ".join(refused),
            remedy="Apply Terraform with that address as web.url, or add the rules of docs/farm/deploy.md"
            " to the bucket.",
        )
    return f"from {origin} straight to {', '.join(app.video_files.origins())}"


def _videos(app: App) -> str:
    """Return how many videos are recorded. Raises Unavailable, or ConfigError without the table."""
    usage = app.videos.usage()
    table = f"{app.settings.aws.videos}: " if app.settings.on_aws else ""
    return f"{table}{usage.videos} uploaded, {usage.open_uploads} of them unfinished"
