"""The command ``serve``: a web application over an output, where operators see and mark alerts.

- ``server``: the set-up of the command, and its server.
- ``app``: the routes.
- ``pages``: what they answer.
- ``output``: what the console reads of an output and its rules, and the changes that it writes.
- ``access``: who may use it, and what for.
"""
