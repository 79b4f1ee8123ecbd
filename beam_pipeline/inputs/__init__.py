"""The inputs of commands: addresses, rule files, archives, and checks that they can be reached."""
