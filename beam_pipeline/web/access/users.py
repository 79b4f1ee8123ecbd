"""The people who may use the console, in a file: names, roles, and hashes of passwords; and the
tokens of programs that mark.

    {"format_version": "1.0", "users": {"anna": {"role": "operator", "password": "$argon2id$…"}},
     "tokens": {"door-bot": {"sha256": "…"}}}

A token is 32 random bytes, which nobody can guess, so a plain hash hides it; checking one costs
nothing, unlike a password. The file is read again when it changes, so a person who is removed, or
whose password or role is changed, is out at once.
"""

from __future__ import annotations

import argparse
import fcntl
import getpass
import hashlib
import json
import os
import re
import secrets
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.inputs.local_files import replace_file
from rules.text import escaped, number_of, shortened

VIEWER, OPERATOR, ADMIN = "viewer", "operator", "admin"
ROLES = (VIEWER, OPERATOR, ADMIN)
"""What a person may do, from least to most: see; mark; see who did what."""
SHORTEST_PASSWORD, LONGEST_PASSWORD = 10, 1000
LONGEST_NAME = 100
"""As long as the name of who marks can be."""

_FORMAT_VERSION = "1.0"
_AT_ONCE = threading.Semaphore(2)
"""Each check takes 64 MiB of memory and some 50 ms of a processor."""
_HASHER = PasswordHasher()
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Person:
    """Somebody who uses the console.

    Attributes:
      name: The name, as marks give it.
      role: One of `ROLES`.
    """

    name: str
    role: str

    def may(self, role: str) -> bool:
        """Returns whether the person may do what a role may do."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Users:
    """The users of a file on this machine.

    Args:
      path: The file.

    Raises:
      SetupError: It can't be read, or is no file of users.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._state: tuple[int, int, int] | None = None
        self._users: Mapping[str, Mapping[str, Any]] = {}
        self._tokens: Mapping[str, str] = {}
        self._nobody = _HASHER.hash("nobody has this password")
        self._read()

    def _read(self) -> None:
        try:
            status = os.stat(self.path)
            state = status.st_mtime_ns, status.st_size, status.st_ino
            if state != self._state:
                content = _read(self.path)
                self._users = content["users"]
                tokens = content["tokens"].items()
                self._tokens = {token["sha256"]: name for name, token in tokens}
                self._state = state
        except OSError as error:
            raise SetupError(
                f"--users {self.path}: can't be read ({error.strerror}); make it with: "
                "python -m beam_pipeline serve users add NAME --role admin --users FILE"
            ) from None

    def names(self) -> dict[str, str]:
        """Returns the role of each user, by name."""
        self._read()
        return {name: str(user["role"]) for name, user in sorted(self._users.items())}

    def person(self, name: str, password: str | None = None) -> Person | None:
        """Returns a user; None if there is none of this name, or the file can't be read now.

        Args:
          name: The name.
          password: Only the user whose password is still that of which `check` returned this; None
            for whatever password.
        """
        try:
            self._read()
        except SetupError:
            return None
        user = self._users.get(name)
        if user is None or password not in (None, _digest(user)):
            return None
        return Person(name, user["role"])

    def check(self, name: str, password: str) -> str | None:
        """Checks the password of a user. It takes as long if there is no such user.

        Returns:
          What tells the password from one that is set later; None if the name or the password is
          wrong.
        """
        try:
            self._read()
        except SetupError:
            return None
        known = self._users.get(name)
        with _AT_ONCE:
            try:
                _HASHER.verify(self._nobody if known is None else known["password"], password)
            except (Argon2Error, InvalidHashError):
                return None
        return None if known is None else _digest(known)

    def token_names(self) -> list[str]:
        """Returns the names of the tokens."""
        self._read()
        return sorted(self._tokens.values())

    def name_of_token(self, token: str) -> str | None:
        """Returns the name of a token; None if there is no such token, or the file can't be read
        now."""
        try:
            self._read()
        except SetupError:
            return None
        return self._tokens.get(_token_digest(token))


def _token_digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _digest(user: Mapping[str, Any]) -> str:
    """Returns a digest of the hash of a password: it differs whenever a password is set, even the
    same one."""
    return hashlib.sha256(str(user["password"]).encode()).hexdigest()


def add_user(path: str, name: str, role: str, password: str) -> bool:
    """Adds a user to a file, or replaces the one of this name; returns whether it is a new one.

    Args:
      path: The file; it is made if it is missing.
      name: The name.
      role: One of `ROLES`.
      password: The password.

    Raises:
      SetupError: A value is wrong, or the file can't be read or written.
    """
    _check_name(name, "user")
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise SetupError(
            f"the password has {number_of(len(password), 'character')}; give {SHORTEST_PASSWORD} "
            f"or more, and {LONGEST_PASSWORD:,} at most"
        )
    user = {"role": role, "password": _HASHER.hash(password)}
    with _changing(path) as content:
        if name in content["tokens"]:
            raise SetupError(f"{shortened(escaped(name))!r}: a token has this name; choose another")
        is_new = name not in content["users"]
        content["users"][name] = user
    return is_new


def remove_user(path: str, name: str) -> None:
    """Removes a user from a file.

    Raises:
      SetupError: There is no such user, or the file can't be read or written.
    """
    with _changing(path) as content:
        if name not in content["users"]:
            raise SetupError(f"{shortened(escaped(name))!r}: no such user in {path}")
        del content["users"][name]


def add_token(path: str, name: str) -> str:
    """Adds a token to a file, and returns it: it is kept nowhere.

    Args:
      path: The file; it is made if it is missing.
      name: Whose marks those with this token are.

    Raises:
      SetupError: The name is wrong or taken, or the file can't be read or written.
    """
    _check_name(name, "token")
    token = secrets.token_urlsafe(32)
    with _changing(path) as content:
        for kind in ("users", "tokens"):
            if name in content[kind]:
                raise SetupError(
                    f"{shortened(escaped(name))!r}: a {kind[:-1]} has this name; choose another, "
                    "or remove it first"
                )
        content["tokens"][name] = {"sha256": _token_digest(token)}
    return token


def remove_token(path: str, name: str) -> None:
    """Removes a token from a file.

    Raises:
      SetupError: There is no such token, or the file can't be read or written.
    """
    with _changing(path) as content:
        if name not in content["tokens"]:
            raise SetupError(f"{shortened(escaped(name))!r}: no such token in {path}")
        del content["tokens"][name]


def _check_name(name: str, kind: str) -> None:
    if (
        not name.strip()
        or not name.isprintable()
        or len(name) > LONGEST_NAME
        or name != name.strip()
    ):
        raise SetupError(
            f"{shortened(escaped(name))!r}: no name of a {kind}; give up to {LONGEST_NAME} "
            "printable characters, without spaces around them"
        )


@contextmanager
def _changing(path: str) -> Iterator[dict[str, dict[str, Mapping[str, Any]]]]:
    """Gives the users and tokens of a file to change, and writes them; nobody else changes it
    meanwhile."""
    file = os.path.realpath(path)  # A link stays one.
    try:
        folder = os.open(os.path.dirname(file), os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise SetupError(f"--users {path}: can't be written ({error.strerror})") from None
    try:
        with suppress(OSError):  # Some network disks lock no folders.
            fcntl.flock(folder, fcntl.LOCK_EX)
        try:
            found = _read(file) if os.path.exists(file) else {"users": {}, "tokens": {}}
            content = {kind: dict(entries) for kind, entries in found.items()}
            yield content
            _write(file, content)
        except OSError as error:
            raise SetupError(f"--users {path}: can't be written ({error.strerror})") from None
    finally:
        os.close(folder)


def _read(path: str) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """Returns the users and the tokens of a file, under these names."""
    with open(path, encoding="utf-8") as file:
        try:
            content = json.load(file)
            users, tokens = content["users"], content.get("tokens", {})
            for name, user in users.items():
                if not isinstance(name, str) or user["role"] not in ROLES:
                    raise ValueError
                if not str(user["password"]).startswith("$argon2"):
                    raise ValueError
            for token in tokens.values():
                if not _SHA256.fullmatch(token["sha256"]):
                    raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise SetupError(
                f"--users {path}: is no file of users; `serve users add` makes one"
            ) from None
    return {"users": users, "tokens": tokens}


def _write(path: str, content: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    value: dict[str, Any] = {"format_version": _FORMAT_VERSION}
    value["users"] = dict(sorted(content["users"].items()))
    if content["tokens"]:
        value["tokens"] = dict(sorted(content["tokens"].items()))
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"

    def set_access(descriptor: int) -> None:
        with suppress(OSError):  # It is a new file, or this user may not give files away.
            before = os.stat(path)
            os.fchown(descriptor, before.st_uid, before.st_gid)
            os.fchmod(descriptor, before.st_mode & 0o770)

    replace_file(path, text.encode(), set_access)


# The command


def change_users(parsed: argparse.Namespace) -> int:
    """Adds, removes or lists users; returns the exit code.

    Raises:
      SetupError: What a person must correct, in one line.
    """
    if parsed.command == "list":
        for name, role in Users(parsed.users).names().items():
            print(f"{name}  {role}")
        return 0
    if parsed.command == "remove":
        remove_user(parsed.users, parsed.name)
        print(f"removed {parsed.name} from {parsed.users}")
        return 0
    is_new = add_user(parsed.users, parsed.name, parsed.role, _password())
    print(f"{'added' if is_new else 'changed'} {parsed.name}, {parsed.role}, in {parsed.users}")
    return 0


def change_tokens(parsed: argparse.Namespace) -> int:
    """Adds, removes or lists tokens; returns the exit code.

    Raises:
      SetupError: What a person must correct, in one line.
    """
    if parsed.command == "list":
        for name in Users(parsed.users).token_names():
            print(name)
    elif parsed.command == "remove":
        remove_token(parsed.users, parsed.name)
        print(f"removed {parsed.name} from {parsed.users}")
    else:
        print(add_token(parsed.users, parsed.name))
    return 0


def _password() -> str:
    """Reads a password: from a person twice, and otherwise the first line of standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("The same again: ") != password:
        raise SetupError("the passwords differ; nothing was changed")
    return password
