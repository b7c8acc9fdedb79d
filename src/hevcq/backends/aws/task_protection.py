"""ECS task scale-in protection: scale-in stops other tasks while this one holds a lease.

It protects against scale-in and deployments, not against Spot or host failure
(https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection-endpoint.html).
"""

from __future__ import annotations

import http.client
import json
import math
from urllib.parse import urlsplit

from hevcq.errors import ConfigError
from hevcq.util.log import get_logger

PATH = "/task-protection/v1/state"
MIN_MINUTES, MAX_MINUTES = 1, 2880
TIMEOUT_S = 5.0

_log = get_logger()


class TaskProtection:
    """Turns the protection of this task on and off; a failure never fails a job.

    `agent_uri` is the container's ECS_AGENT_URI. Raises ConfigError if it is no http URL.
    """

    def __init__(self, agent_uri: str) -> None:
        parts = urlsplit(agent_uri)
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigError(f"The ECS agent's address {agent_uri!r} is not an http URL.")
        self._host, self._port = parts.hostname, parts.port or 80
        self._path = parts.path.rstrip("/") + PATH

    def protect(self, seconds: float) -> bool:
        """Request protection for `seconds`, rounded up to minutes; return whether it is on."""
        minutes = min(MAX_MINUTES, max(MIN_MINUTES, math.ceil(seconds / 60)))
        return self._put({"ProtectionEnabled": True, "ExpiresInMinutes": minutes}) is True

    def release(self) -> bool:
        """End the protection; return whether it is off."""
        return self._put({"ProtectionEnabled": False}) is False

    def _put(self, wanted: dict[str, object]) -> bool | None:
        """Return the state that the agent reports, or None after logging a warning."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            body = json.dumps(wanted)
            headers = {"Content-Type": "application/json"}
            connection.request("PUT", self._path, body=body, headers=headers)
            answer = json.loads(connection.getresponse().read(65_536))
        except (OSError, http.client.HTTPException, ValueError) as error:
            _log.warning("task_protection_unreachable", why=f"{type(error).__name__}: {error}")
            return None
        finally:
            connection.close()
        state = answer.get("protection") if isinstance(answer, dict) else None
        if isinstance(state, dict) and isinstance(state.get("ProtectionEnabled"), bool):
            return bool(state["ProtectionEnabled"])
        _log.warning("task_protection_refused", answer=json.dumps(answer)[:500])
        return None
