"""Who may do what, and what a browser may do with the pages.

Every request passes `Guard`: it finds the person, refuses what the person's role may not do, and
adds the headers. What is in none of its tables is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import re
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from beam_pipeline.web.access.users import ADMIN, OPERATOR, VIEWER, Person, Users

_LOGGER = logging.getLogger(__name__)

COOKIE = "console_session"
SESSION_SECONDS = 12 * 3600
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")

_OPEN = re.compile(
    r"/(healthz|readyz|metrics|login|openapi\.json|static/[\w.-]+|m/[^/]*|api/marks)"
)
"""What needs no log-in. Routes under `m` and `api` check their links and tokens themselves."""
_ROLES: Sequence[tuple[str, re.Pattern[str], str]] = (
    ("POST", re.compile(r"/marks"), OPERATOR),
    ("POST", re.compile(r"/cameras/[^/]*/zones"), ADMIN),
    ("POST", re.compile(r"/cameras/[^/]*/zones/try"), OPERATOR),
    ("POST", re.compile(r"/logout"), VIEWER),
    ("POST", re.compile(r"/cameras/[^/]*/proposals|/rules/restore"), ADMIN),
    ("GET", re.compile(r"/rules/changes(/[^/]*)?"), ADMIN),
    ("GET", re.compile(r"/audit"), ADMIN),
    (
        "GET",
        re.compile(r"/(alerts|alerts/[^/]*|fleet|fleet/chart\.svg|health|shadow|live)?"),
        VIEWER,
    ),
    ("GET", re.compile(r"/cameras/[^/]*(/images(/[^/]*)?|/proposals|/zones)?"), VIEWER),
    ("GET", re.compile(r"/images/[^/]*/[^/]*"), VIEWER),
)
"""The role that each request needs."""

_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; "
    "script-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_SESSIONS_OF_ONE = 20
_FAILURES, _FAILURES_OF_ADDRESS, _WITHIN_SECONDS = 5, 30, 900.0
_MOST_KEYS = 10_000

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Sessions:
    """Who has logged in, in the memory of this process. Thread-safe.

    Args:
      clock: Returns seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: dict[str, tuple[str, str, float]] = {}
        self._lock = threading.Lock()

    def begin(self, name: str, password: str) -> str:
        """Begins a session; returns the secret that the browser keeps.

        Args:
          name: Of the user.
          password: What tells the user's password from an earlier one, see `Users.check`.
        """
        secret = secrets.token_urlsafe(32)
        now = self._clock()
        with self._lock:
            alive = {key: kept for key, kept in self._sessions.items() if kept[2] > now}
            of_one = [key for key, kept in alive.items() if kept[0] == name]
            for key in of_one[: max(0, len(of_one) - _SESSIONS_OF_ONE + 1)]:
                del alive[key]
            alive[_digest(secret)] = name, password, now + SESSION_SECONDS
            self._sessions = alive
        return secret

    def find(self, secret: str) -> tuple[str, str] | None:
        """Returns who has this session, and the password as in `begin`; None if it has ended."""
        kept = self._sessions.get(_digest(secret))
        return kept[:2] if kept is not None and kept[2] > self._clock() else None

    def end(self, secret: str) -> None:
        """Ends a session."""
        with self._lock:
            self._sessions.pop(_digest(secret), None)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class FailureLimit:
    """Refuses to try passwords after several failures. Thread-safe.

    Args:
      clock: Returns seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[tuple[str, str], deque[float]] = {}
        self._lock = threading.Lock()

    def wait_seconds(self, address: str, name: str) -> int:
        """Returns how long somebody must wait; 0 if not at all.

        Args:
          address: Of the client.
          name: Of the user.
        """
        now = self._clock()
        with self._lock:
            waits = [
                failures[-most] + _WITHIN_SECONDS - now
                for key, most in _limits(address, name)
                if len(failures := self._failures.get(key, deque())) >= most
            ]
        return max([0, *(int(wait) + 1 for wait in waits if wait > 0)])

    def note_failure(self, address: str, name: str) -> None:
        """Notes that a password was wrong."""
        now = self._clock()
        with self._lock:
            if len(self._failures) > _MOST_KEYS:
                self._failures = {
                    key: failures
                    for key, failures in self._failures.items()
                    if now - failures[-1] < _WITHIN_SECONDS
                }
            for key, most in _limits(address, name):
                self._failures.setdefault(key, deque(maxlen=most)).append(now)

    def note_success(self, address: str, name: str) -> None:
        """Notes that a password was right, after its failure was noted: it was none, and the
        earlier ones of this name are forgotten."""
        with self._lock:
            self._failures.pop((address, name), None)
            of_address = self._failures.get((address, ""))
            if of_address:
                of_address.pop()
            if not of_address:
                self._failures.pop((address, ""), None)


def _limits(address: str, name: str) -> tuple[tuple[tuple[str, str], int], ...]:
    return ((address, name), _FAILURES), ((address, ""), _FAILURES_OF_ADDRESS)


@dataclass(frozen=True)
class Access:
    """Who may come in, and how.

    Attributes:
      users: The users; None where there is no log-in.
      local: Who uses a console without users: only this machine reaches it.
      trusted_header: The header in which a proxy says who it is; None without.
      proxies: From where such a header, and those that a proxy adds, are believed.
      hosts: The names under which a browser may reach it; None for any.
    """

    users: Users | None = None
    local: Person | None = None
    trusted_header: str | None = None
    proxies: tuple[Network, ...] = ()
    hosts: frozenset[str] | None = None


class Guard:
    """Middleware that every request passes.

    Args:
      app: The application.
      access: Who may come in.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self.access = access
        self.sessions = Sessions()
        self.failures = FailureLimit()
        self.token_failures = FailureLimit()
        self.answers: Counter[int] = Counter()
        self._key = secrets.token_bytes(32)
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or passes it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.answers[message["status"]] += 1
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if self.is_https(connection):
                    headers.setdefault("Strict-Transport-Security", "max-age=31536000")
            await send(message)

        person = self.person(connection)
        scope.setdefault("state", {})["person"] = person
        refusal = self._refusal(connection, scope["method"], person)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(
        self, connection: HTTPConnection, method: str, person: Person | None
    ) -> PlainTextResponse | RedirectResponse | None:
        path = connection.scope["path"]
        hosts = self.access.hosts
        if hosts is not None and _without_port(connection.headers.get("host", "")) not in hosts:
            return PlainTextResponse(
                "This console is reached only under an address of its own machine.", 421
            )
        if _OPEN.fullmatch(path):
            return None
        needed = _needed_role(method, path)
        if needed is None:
            if person is None:
                return PlainTextResponse("Log in first.", 401)
            return None  # The routes say that there is no such page.
        if person is None:
            if method in ("GET", "HEAD") and _is_page(path) and self.access.users is not None:
                query = connection.scope["query_string"].decode("latin-1")
                here = quote(path + (f"?{query}" if query else ""), safe="")
                return RedirectResponse(f"/login?next={here}", 303)
            return PlainTextResponse("Log in first.", 401)
        if not person.may(needed):
            return PlainTextResponse(f"This needs the role {needed}; yours is {person.role}.", 403)
        return None

    def person(self, connection: HTTPConnection) -> Person | None:
        """Returns who makes a request; None if that is unknown."""
        access = self.access
        if access.trusted_header is not None and self._is_from_proxy(connection):
            names = connection.headers.getlist(access.trusted_header)
            if len(names) == 1 and names[0].strip() and names[0].isprintable():
                name = names[0].strip()[:100]
                known = None if access.users is None else access.users.person(name)
                return known or Person(name, VIEWER)
        if access.local is not None:
            return access.local
        secret = connection.cookies.get(COOKIE)
        session = None if not secret else self.sessions.find(secret)
        if session is None or access.users is None:
            return None
        name, password = session
        return access.users.person(name, password)

    def token(self, connection: HTTPConnection) -> str:
        """Returns what a form must hold, so that no other site can send it."""
        person: Person | None = connection.state.person
        who = f"{connection.cookies.get(COOKIE, '')}\n{'' if person is None else person.name}"
        return hmac.new(self._key, who.encode("utf-8", "replace"), "sha256").hexdigest()

    def is_forged(self, connection: HTTPConnection, token: str | None) -> bool:
        """Returns whether a form comes from elsewhere than a page of this console.

        Args:
          connection: The request.
          token: What the form holds; None for the form of the log-in, which needs none.
        """
        headers = connection.headers
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return True
        origin = headers.get("origin")
        if origin is not None and _place(origin) != self._host(connection):
            return True
        return token is not None and not hmac.compare_digest(
            token.encode("utf-8", "replace"), self.token(connection).encode()
        )

    def client(self, connection: HTTPConnection) -> str:
        """Returns the address of the client, as the proxy gives it if there is one.

        Of an IPv6 address it is the network of 64 bits, all of which one client has.
        """
        forwarded = self._forwarded(connection, "x-forwarded-for")
        address = _address(_without_port(forwarded or "").strip("[]")) or _peer(connection)
        if isinstance(address, ipaddress.IPv6Address):
            return str(ipaddress.IPv6Network((int(address), 64), strict=False))
        return str(address or "")

    def is_https(self, connection: HTTPConnection) -> bool:
        """Returns whether the browser reaches the console by HTTPS."""
        return self._forwarded(connection, "x-forwarded-proto") == "https"

    def _host(self, connection: HTTPConnection) -> str:
        host = connection.headers.get("host", "")
        return self._forwarded(connection, "x-forwarded-host") or host

    def _forwarded(self, connection: HTTPConnection, name: str) -> str | None:
        """Returns what the proxy says: the last value, as those before it may be the client's."""
        headers: Headers = connection.headers
        if not self._is_from_proxy(connection):
            if name == "x-forwarded-for" and name in headers and not self._has_warned:
                self._has_warned = True
                _LOGGER.warning(
                    "a request from %s has the header X-Forwarded-For. If that is your proxy, give "
                    "--trusted_proxy with its address: until then all people behind it count as "
                    "one address, and wrong passwords of one block the log-in of all",
                    _peer(connection),
                )
            return None
        return ",".join(headers.getlist(name)).rpartition(",")[2].strip() or None

    def _is_from_proxy(self, connection: HTTPConnection) -> bool:
        peer = _peer(connection)
        return peer is not None and any(peer in network for network in self.access.proxies)


def _peer(connection: HTTPConnection) -> Address | None:
    return _address(connection.client.host if connection.client else "")


def _address(text: str) -> Address | None:
    """Reads an address; one of IPv4 that is written as IPv6 is that of IPv4."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _place(origin: str) -> str | None:
    """Returns the host and port of an origin; None if it is damaged."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _needed_role(method: str, path: str) -> str | None:
    asked = "GET" if method == "HEAD" else method
    for of_method, pattern, role in _ROLES:
        if of_method == asked and pattern.fullmatch(path):
            return role
    return None


def _is_page(path: str) -> bool:
    return not path.startswith(("/live", "/images/", "/alerts/list", "/fleet/"))


def _without_port(host: str) -> str:
    """Leaves out the port; an address of IPv6 has one only after brackets."""
    return re.sub(r"\A([^:]*|\[.*\]):\d+\Z", r"\1", host).lower()
