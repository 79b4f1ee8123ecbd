"""Who may use the console, and what for."""
