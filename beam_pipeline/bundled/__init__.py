"""What the job runs on when it is given nothing else: samples, a detector for them, and rules."""
