"""Sign in at an OpenID provider: code flow with PKCE, state and nonce (OpenID Connect Core 1.0).

A person is identified by issuer and subject, never by an e-mail address, which may change hands.
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
"""Only signatures with public keys: with HS256 the client's secret would be a signing key."""
TIMEOUT_S = 10.0
KEEP_S = 3600.0
"""Seconds that the provider's metadata and keys are cached; an unknown key is fetched earlier."""
LEEWAY_S = 60
ROLE_HOURS = 1.0
"""The longest session of an operator in hours: only a sign-in fetches the groups again."""
FLOW_S = 600.0
"""Seconds that a person may spend at the provider."""
PATH = "/sign-in/oidc"
BACK = "/sign-in/oidc/back"


class SignInRefused(Exception):
    """The provider's answer does not belong to this sign-in; the message is for the log."""


@dataclass(frozen=True, slots=True)
class Flow:
    """The secrets of an unfinished sign-in, kept in a signed cookie; `after` is the path to open then."""

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

    Raises ConfigError without an issuer and a client, or for an issuer without https.
    """

    start = PATH
    role_hours = ROLE_HOURS

    def __init__(self, settings: WebSettings, clock: Clock) -> None:
        oidc = settings.oidc
        if not oidc.issuer or not oidc.client_id:
            raise ConfigError('web.auth = "oidc" needs web.oidc.issuer and web.oidc.client_id.')
        _require_https(oidc.issuer)
        self._settings, self._oidc, self._clock = settings, oidc, clock
        # A session ends when the settings that gave it its role change.
        named = [oidc.issuer, oidc.client_id, oidc.operator_group]
        self._mark = digest(json.dumps([*named, *sorted(settings.operators)]))[:12]
        self._lock = threading.Lock()
        self._cache: dict[str, tuple[float, dict[str, Any]]] = {}

    def check_provider(self) -> None:
        """Fetch the provider's endpoints and keys. Raises ConfigError, Unavailable."""
        for name in ("authorization_endpoint", "token_endpoint"):
            self._endpoint(name)
        try:
            self._keys(KEEP_S)
        except (JoseError, ValueError) as error:
            raise Unavailable(f"The sign-in provider's keys cannot be read: {error}.") from error

    def revalidate(self, session: Person) -> Person | None:
        """Return the person, or None if the provider or the settings changed since."""
        return session if session.mark == self._mark else None

    def _is_operator(self, owner: str) -> bool:
        """Return whether the settings name the owner: the provider's groups are unknown here."""
        subject = owner.removeprefix(f"{self._oidc.issuer}#")
        named = subject != owner and "@" not in subject and subject in self._settings.operators
        return named or owner == LOCAL_OWNER

    def begin(self, flow: Flow, here: str) -> str:
        """Return the provider's address where the sign-in starts. Raises Unavailable."""
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
        """Return the person that the provider's answer names. Raises SignInRefused, Unavailable."""
        if not hmac.compare_digest(flow.state.encode(), answer.get("state", "").encode()):
            raise SignInRefused("the state belongs to another sign-in")
        if answer.get("iss", self._oidc.issuer) != self._oidc.issuer:
            raise SignInRefused("another provider answered")  # RFC 9207, mix-up attacks
        code = answer.get("code", "")
        if not code:
            raise SignInRefused(f"the provider's error is {answer.get('error', 'unknown')!r}")
        return self._person(self._claims(self._exchange(code, flow.verifier, here), flow.nonce))

    def signed_out_at(self) -> str:
        """Return the path of the page that offers to sign out at the provider too."""
        return "/sign-in?left=yes"

    def provider_sign_out(self, here: str) -> str:
        """Return the address that signs people out at the provider, or "" if it has none."""
        # Cognito names no address in its metadata, and has its own parameter.
        back = "logout_uri" if self._oidc.logout_url else "post_logout_redirect_uri"
        address = self._oidc.logout_url or self._metadata().get("end_session_endpoint")
        query = {"client_id": self._oidc.client_id, back: f"{here}/sign-in"}
        return f"{address}?{urlencode(query)}" if address else ""

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
        answer = _request("POST", self._endpoint("token_endpoint"), data=form, auth=auth)
        token = _json(answer).get("id_token")
        if answer.status_code != 200 or not isinstance(token, str):
            raise SignInRefused(f"no ID token for the code ({answer.status_code})")
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
            token_use={"value": "id"},  # Cognito signs access tokens with the same keys
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
            # Signed with a key newer than the cached ones: providers rotate them.
            return jwt.decode(token, self._keys(TIMEOUT_S), ALGORITHMS).claims

    def _person(self, claims: Mapping[str, Any]) -> Person:
        subject = str(claims["sub"])
        name_claims = ("preferred_username", "cognito:username", "name", "email")
        name = next((str(claims[claim]) for claim in name_claims if claims.get(claim)), subject)
        groups = claims.get("cognito:groups", claims.get("groups", ()))
        operator_group = self._oidc.operator_group
        is_member = bool(operator_group) and isinstance(groups, list) and operator_group in groups
        mail = claims.get("email") if claims.get("email_verified") is True else None
        # A subject that looks like an e-mail address does not count: people may choose theirs.
        identities = {mail} if isinstance(mail, str) and "@" in mail else set()
        identities |= set() if "@" in subject else {subject}
        is_operator = is_member or not identities.isdisjoint(self._settings.operators)
        owner = f"{self._oidc.issuer}#{subject}"
        role = Role.OPERATOR if is_operator else Role.USER
        return Person(owner, name[:255], role, mark=self._mark)

    def _endpoint(self, name: str) -> str:
        address = self._metadata().get(name)
        if not isinstance(address, str):
            raise Unavailable(f"The sign-in provider names no {name}.")
        return _require_https(address)

    def _metadata(self) -> dict[str, Any]:
        issuer = self._oidc.issuer
        metadata = self._get(f"{issuer.rstrip('/')}/.well-known/openid-configuration", KEEP_S)
        if metadata.get("issuer") != issuer:
            raise ConfigError(
                f"The provider calls itself {metadata.get('issuer')!r}, but web.oidc.issuer is {issuer!r}."
            )
        return metadata

    def _keys(self, max_age_s: float) -> KeySet:
        return KeySet.import_key_set(self._get(self._endpoint("jwks_uri"), max_age_s))  # type: ignore[arg-type]

    def _get(self, address: str, max_age_s: float) -> dict[str, Any]:
        """Return the provider's answer, from the cache if that is at most `max_age_s` old."""
        with self._lock:
            at, answer = self._cache.get(address, (float("-inf"), {}))
            if self._clock.monotonic() - at > max_age_s:
                answer = _json(_request("GET", address))
                self._cache[address] = self._clock.monotonic(), answer
            return answer


def _request(method: str, address: str, **more: Any) -> httpx2.Response:
    """Return the provider's answer; redirects are not followed. Raises Unavailable."""
    try:
        with httpx2.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
            answer = client.request(method, address, **more)
    except httpx2.HTTPError as error:
        raise Unavailable(f"The sign-in provider does not answer: {error}.") from error
    if answer.status_code >= 500 or (method == "GET" and answer.status_code != 200):
        raise Unavailable(f"The sign-in provider answers {answer.status_code} for {address}.")
    return answer


def _json(answer: httpx2.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise Unavailable("The sign-in provider's answer does not follow the standard.")
    return content


def _require_https(address: str) -> str:
    """Return the address. Raises ConfigError without https, unless it is on this machine."""
    parts = urlsplit(address)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ConfigError(f"The sign-in provider must be reached by https, not {address}.")
    return address
