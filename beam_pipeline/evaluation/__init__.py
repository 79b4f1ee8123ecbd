"""How good the alerts of an archive are against the truth, and which scores would be better."""
