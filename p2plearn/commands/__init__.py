"""Commands of the command line by subject; ``assembly`` says which is where."""
