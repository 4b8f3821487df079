"""Why two machines can't see each other, in words, and what to do: facts in, findings out."""
