"""Arguments, tables, progress and messages on a terminal, and the end of a command."""
