"""What steps share in a worker: reading ahead, rules that are edited, and counters."""
