"""How many copies for what loss: formulas, no node."""
