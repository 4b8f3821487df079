"""Commands of the command line by subject; ``cli`` makes the group that they are attached to."""
