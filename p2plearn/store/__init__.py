"""What this node keeps, and its border with the user's disk."""
