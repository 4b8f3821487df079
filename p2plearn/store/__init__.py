"""What this node keeps, and its border with the user's disk. Blocking, thread-safe, no network."""
