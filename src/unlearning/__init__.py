"""Machine unlearning: recipes, one engine, and what watches it. Read recipe, engine and methods first."""
