"""How the weights that Winnow ships were made, and how to make your own: recipes over mined groups."""
