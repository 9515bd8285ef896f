"""Verdicts: can a model be distinguished from one that was retrained without the forget set?

`judge` decides from logits tables, `accuracies` from published accuracies alone."""
