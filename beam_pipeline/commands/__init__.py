"""The commands: a module each, which reads the arguments and then imports what does the work."""
