"""What a person at a terminal gives and sees, and how a command ends."""
