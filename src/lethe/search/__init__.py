"""Search of a method's arguments. The only package that imports optuna."""
