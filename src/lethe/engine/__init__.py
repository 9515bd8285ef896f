"""The only place that steps a model."""
