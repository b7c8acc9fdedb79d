"""Sign in at an OpenID provider: code flow with PKCE, state and nonce (OpenID Connect Core 1.0).

The person is known by issuer and subject, never by an e-mail address, which may change hands.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx2
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from hevcq.errors import ConfigError, Unavailable
from hevcq.settings.web import WebSettings
from hevcq.util.clock import Clock
from hevcq.web.identity.modes import SignInMode
from hevcq.web.identity.person import LOCAL_OWNER, Person, Role
from hevcq.web.identity.session import digest
from hevcq.web.shield import is_loopback

ALGORITHMS = ["RS256", "PS256", "ES256", "RS512", "PS512", "ES384", "EdDSA"]
"""Signatures with a public key only: with HS256 the client's secret would be a signing key."""
TIMEOUT_S = 10.0
KEEP_S = 3600.0
"""Seconds that the provider's description and keys are kept; unknown keys are asked for earlier."""
LEEWAY_S = 60
ROLE_HOURS = 1.0
"""Hours that an operator's session lasts at most: only a sign-in asks the provider for the groups again."""
FLOW_S = 600.0
"""Seconds that a person may take at the provider."""
PATH = "/sign-in/oidc"
BACK = "/sign-in/oidc/back"


class SignInRefused(Exception):
    """The provider's answer is not one to this sign-in; the message is for the log."""


@dataclass(frozen=True, slots=True)
class Flow:
    """The secrets of one sign-in under way, kept in a signed cookie; `after` is where it leads."""

    state: str
    nonce: str
    verifier: str
    after: str

    @classmethod
    def start(cls, after: str) -> Flow:
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        return cls(state, nonce, verifier, after)


class Oidc(SignInMode):
    """An OpenID provider, e.g. Keycloak, Authentik or a Cognito user pool.

    Raises ConfigError for settings without an address and a client, or with an address that is not safe.
    """

    start = PATH
    role_hours = ROLE_HOURS

    def __init__(self, settings: WebSettings, clock: Clock) -> None:
        oidc = settings.oidc
        if not oidc.issuer or not oidc.client_id:
            raise ConfigError('web.auth = "oidc" needs web.oidc.issuer and web.oidc.client_id.')
        _safe(oidc.issuer)
        self._settings, self._oidc, self._clock = settings, oidc, clock
        # A session counts under the settings that gave it its role.
        named = [oidc.issuer, oidc.client_id, oidc.operator_group]
        self._mark = digest(json.dumps([*named, *sorted(settings.operators)]))[:12]
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, dict[str, Any]]] = {}

    def check_provider(self) -> None:
        """Ask the provider for its addresses and keys. Raises ConfigError, Unavailable."""
        for name in ("authorization_endpoint", "token_endpoint"):
            self._endpoint(name)
        try:
            self._keys(KEEP_S)
        except (JoseError, ValueError) as error:
            raise Unavailable(f"The sign-in provider's keys cannot be read: {error}.") from error

    def still(self, session: Person) -> Person | None:
        """Return the person, unless another provider or other settings signed them in."""
        return session if session.mark == self._mark else None

    def _runs(self, owner: str) -> bool:
        """Return whether the settings name an owner: nobody knows now who is in a group."""
        subject = owner.removeprefix(f"{self._oidc.issuer}#")
        named = subject != owner and "@" not in subject and subject in self._settings.operators
        return named or owner == LOCAL_OWNER

    def begin(self, flow: Flow, here: str) -> str:
        """Return the address at the provider that a sign-in starts at. Raises Unavailable."""
        hashed = hashlib.sha256(flow.verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._oidc.client_id,
            "redirect_uri": here + BACK,
            "scope": "openid profile email",
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": base64.urlsafe_b64encode(hashed).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return f"{self._endpoint('authorization_endpoint')}?{urlencode(query)}"

    def finish(self, flow: Flow, answer: Mapping[str, str], here: str) -> Person:
        """Return the person of the provider's answer. Raises SignInRefused, Unavailable."""
        if not hmac.compare_digest(flow.state.encode(), answer.get("state", "").encode()):
            raise SignInRefused("the state is another's")
        if answer.get("iss", self._oidc.issuer) != self._oidc.issuer:
            raise SignInRefused("another provider answers")  # RFC 9207, mix-up attacks
        code = answer.get("code", "")
        if not code:
            raise SignInRefused(f"the provider says {answer.get('error', 'nothing')!r}")
        return self._person(self._claims(self._exchange(code, flow.verifier, here), flow.nonce))

    def signed_out_at(self) -> str:
        """Return the page that offers to sign out at the provider too."""
        return "/sign-in?left=yes"

    def provider_sign_out(self, here: str) -> str:
        """Return where the provider signs people out, or "" if it says no such place."""
        # Cognito names no place in its discovery, and has its own parameter.
        back = "logout_uri" if self._oidc.logout_url else "post_logout_redirect_uri"
        there = self._oidc.logout_url or self._discovered().get("end_session_endpoint")
        query = {"client_id": self._oidc.client_id, back: f"{here}/sign-in"}
        return f"{there}?{urlencode(query)}" if there else ""

    def _exchange(self, code: str, verifier: str, here: str) -> str:
        client, secret = self._oidc.client_id, self._oidc.client_secret.get_secret_value()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": here + BACK,
            **({} if secret else {"client_id": client}),
        }
        auth = (client, secret) if secret else None
        got = _asked("POST", self._endpoint("token_endpoint"), data=form, auth=auth)
        token = _json(got).get("id_token")
        if got.status_code != 200 or not isinstance(token, str):
            raise SignInRefused(f"no ID token for the code ({got.status_code})")
        return token

    def _claims(self, token: str, nonce: str) -> Mapping[str, Any]:
        client = self._oidc.client_id
        checks = jwt.JWTClaimsRegistry(
            now=int(self._clock.now()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": self._oidc.issuer},
            aud={"essential": True, "value": client},
            azp={"value": client},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
            token_use={"value": "id"},  # Cognito signs access tokens by the same keys
        )
        try:
            claims = self._decoded(token)
            checks.validate(claims)
        except (JoseError, ValueError) as error:
            raise SignInRefused(f"the ID token is refused: {error}") from error
        if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and "azp" not in claims:
            raise SignInRefused("the ID token was issued to another client")
        if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
            raise SignInRefused("the ID token has no usable subject")
        return claims

    def _decoded(self, token: str) -> dict[str, Any]:
        try:
            return jwt.decode(token, self._keys(KEEP_S), ALGORITHMS).claims
        except (JoseError, ValueError):
            # Signed by a key that is newer than those at hand: providers change theirs.
            return jwt.decode(token, self._keys(TIMEOUT_S), ALGORITHMS).claims

    def _person(self, claims: Mapping[str, Any]) -> Person:
        subject = str(claims["sub"])
        named = ("preferred_username", "cognito:username", "name", "email")
        name = next((str(claims[each]) for each in named if claims.get(each)), subject)
        groups = claims.get("cognito:groups", claims.get("groups", ()))
        wanted = self._oidc.operator_group
        member = bool(wanted) and isinstance(groups, list) and wanted in groups
        mail = claims.get("email") if claims.get("email_verified") is True else None
        # Whoever chooses a subject that looks like an operator's address is no operator.
        known = {mail} if isinstance(mail, str) and "@" in mail else set()
        known |= set() if "@" in subject else {subject}
        operator = member or not known.isdisjoint(self._settings.operators)
        owner = f"{self._oidc.issuer}#{subject}"
        role = Role.OPERATOR if operator else Role.USER
        return Person(owner, name[:255], role, mark=self._mark)

    def _endpoint(self, name: str) -> str:
        there = self._discovered().get(name)
        if not isinstance(there, str):
            raise Unavailable(f"The sign-in provider names no {name}.")
        return _safe(there)

    def _discovered(self) -> dict[str, Any]:
        issuer = self._oidc.issuer
        found = self._get(f"{issuer.rstrip('/')}/.well-known/openid-configuration", KEEP_S)
        if found.get("issuer") != issuer:
            raise ConfigError(
                f"The provider calls itself {found.get('issuer')!r}, but web.oidc.issuer is {issuer!r}."
            )
        return found

    def _keys(self, max_age_s: float) -> KeySet:
        return KeySet.import_key_set(self._get(self._endpoint("jwks_uri"), max_age_s))  # type: ignore[arg-type]

    def _get(self, address: str, max_age_s: float) -> dict[str, Any]:
        """Return what the provider answers, or answered at most so many seconds ago."""
        with self._lock:
            at, found = self._kept.get(address, (float("-inf"), {}))
            if self._clock.monotonic() - at > max_age_s:
                found = _json(_asked("GET", address))
                self._kept[address] = self._clock.monotonic(), found
            return found


def _asked(method: str, address: str, **more: Any) -> httpx2.Response:
    """Return the provider's answer, which is no redirection. Raises Unavailable."""
    try:
        with httpx2.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
            got = client.request(method, address, **more)
    except httpx2.HTTPError as error:
        raise Unavailable(f"The sign-in provider does not answer: {error}.") from error
    if got.status_code >= 500 or (method == "GET" and got.status_code != 200):
        raise Unavailable(f"The sign-in provider answers {got.status_code} for {address}.")
    return got


def _json(got: httpx2.Response) -> dict[str, Any]:
    try:
        found = got.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Unavailable("The sign-in provider's answer is not what the standard says.")
    return found


def _safe(address: str) -> str:
    """Return the address if nobody on the way can change what it answers. Raises ConfigError."""
    parts = urlsplit(address)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ConfigError(f"The sign-in provider must be reached by https, not {address}.")
    return address
