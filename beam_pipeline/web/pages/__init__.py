"""What the console answers: pages, forms, and addresses for programs."""
