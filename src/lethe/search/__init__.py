"""Search for better arguments of a method with Optuna. The only package that imports optuna."""
