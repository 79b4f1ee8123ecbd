"""Parts that steps share in a worker: reading ahead, edited rules, and counters."""
