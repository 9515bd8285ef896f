"""Errors, files, logging, redaction and the checkout: what every other package may use."""
