"""The commands ``serve``, ``serve users`` and ``serve tokens``: the console, and who may use it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from beam_pipeline.commands.arguments import command_parser, parse
from beam_pipeline.console.parsing import (
    DEFAULT_OUTPUT,
    OneLineParser,
    add_labels,
    at_least_1,
    hours,
    integer,
)


def parser() -> OneLineParser:
    """Returns the command's parser."""
    parser = command_parser(
        "serve",
        "Serves a web application over an output: alerts as they come, with their images; marks of "
        "operators; cameras, the fleet and its health; zones, and proposals that silence false "
        "alerts. It writes only marks, audit entries, and what an admin changes: the rule file and "
        "its versions in rules/history/. `serve users` manages who may log in, `serve tokens` "
        "which programs may mark.",
    )
    parser.add_argument(
        "--output",
        "--archive",
        metavar="DIR",
        default=DEFAULT_OUTPUT,
        help="the job's output, on a local disk or in a store (default: %(default)s)",
    )
    parser.add_argument(
        "--rules",
        metavar="FILE",
        help="the rule file, which the pages of cameras explain, and which admins change by "
        "proposals and zones",
    )
    add_labels(parser)
    parser.add_argument(
        "--bind",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="the address to listen on; one that other machines reach needs --users or "
        "--trusted_header (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=8000,
        help="the port to listen on; 0 for any free one (default: %(default)s)",
    )
    parser.add_argument(
        "--users",
        metavar="FILE",
        help="who may log in; `serve users add` makes the file (default: without a log-in, for "
        "this machine only)",
    )
    parser.add_argument(
        "--trusted_header",
        metavar="NAME",
        help="the header in which a proxy names the person it has logged in, such as "
        "X-Forwarded-User; a person whom --users does not name is a viewer",
    )
    parser.add_argument(
        "--trusted_proxy",
        action="append",
        dest="trusted_proxies",
        metavar="ADDRESS",
        help="the address or network of the proxy, such as 10.0.0.0/8: only from there are its "
        "headers believed; may be given several times (default: this machine)",
    )
    parser.add_argument(
        "--index",
        metavar="FOLDER",
        help="where to keep the index of the output, which can be deleted at any time (default: a "
        "folder of the user's cache)",
    )
    parser.add_argument(
        "--poll_interval_seconds",
        type=at_least_1,
        default=5,
        metavar="SECONDS",
        help="how often to look for new alerts and marks, at most (default: %(default)s)",
    )
    parser.add_argument(
        "--report_period_hours",
        type=hours,
        default=24.0,
        metavar="HOURS",
        help="length of the period that the pages of the fleet and of cameras show (default: 24)",
    )
    return parser


def further_parsers() -> Mapping[str, OneLineParser]:
    """Returns the parsers of the commands beneath this one, by their names."""
    parsers = {f"serve users {name}": parser for name, parser in _user_commands()[1].items()}
    return {
        **parsers,
        **{f"serve tokens {name}": parser for name, parser in _token_commands()[1].items()},
    }


def _user_commands() -> tuple[OneLineParser, dict[str, OneLineParser]]:
    users = command_parser("serve users", epilog=None)
    commands = users.add_subparsers(dest="command", required=True, parser_class=OneLineParser)
    texts = {
        "add": "Adds a user to the file of those who may log in, or changes one. It asks for the "
        "password, or reads it from standard input; only its argon2 hash is kept.",
        "remove": "Removes a user from the file. The console ends the sessions of this user.",
        "list": "Lists the users of the file with their roles.",
    }
    parsers = {
        name: commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        for name, text in texts.items()
    }
    for name in ("add", "remove"):
        parsers[name].add_argument("name", metavar="NAME", help="the name of the user")
    parsers["add"].add_argument(
        "--role",
        choices=("viewer", "operator", "admin"),
        required=True,
        help="viewer: sees everything but the audit and the changes of the rules; operator: also "
        "marks alerts, and draws zones and masks; admin: also sees who did what, saves zones and "
        "masks, applies proposals, and puts versions of the rules back",
    )
    for one in parsers.values():
        one.add_argument("--users", metavar="FILE", required=True, help="the file")
    return users, parsers


def _token_commands() -> tuple[OneLineParser, dict[str, OneLineParser]]:
    tokens = command_parser("serve tokens", epilog=None)
    commands = tokens.add_subparsers(dest="command", required=True, parser_class=OneLineParser)
    texts = {
        "add": "Adds a token with which a program can mark alerts, and prints it, once: only its "
        "hash is kept in the file of the users.",
        "remove": "Removes a token from the file. The console refuses it from then on.",
        "list": "Lists the names of the tokens of the file.",
    }
    parsers = {
        name: commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        for name, text in texts.items()
    }
    for name in ("add", "remove"):
        parsers[name].add_argument(
            "name", metavar="NAME", help="the name of the token, which its marks have"
        )
    for one in parsers.values():
        one.add_argument("--users", metavar="FILE", required=True, help="the file of the users")
    return tokens, parsers


def _port(text: str) -> int:
    port = integer(text, 0)
    if port > 65535:
        raise argparse.ArgumentTypeError(f"{port} is more than 65535")
    return port


def main(words: Sequence[str]) -> int:
    """Runs a command; returns the exit code."""
    if words[:1] == ["users"]:
        chosen = _user_commands()[0].parse_args(words[1:])
        # It makes hashes, which few calls need.
        from beam_pipeline.web.access.users import change_users

        return change_users(chosen)
    if words[:1] == ["tokens"]:
        chosen = _token_commands()[0].parse_args(words[1:])
        from beam_pipeline.web.access.users import change_tokens

        return change_tokens(chosen)
    parsed = parse(parser(), words)
    from beam_pipeline.web.server import serve  # Slow: it reads stores.

    return serve(parsed)
