"""How a word of the output is explained."""
