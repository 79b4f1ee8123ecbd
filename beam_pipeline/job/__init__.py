"""The job: its options, its preparation, its pipeline, and what it says at the end."""
