"""What is known of all cameras: counts, chart, health, alerts that wait."""
