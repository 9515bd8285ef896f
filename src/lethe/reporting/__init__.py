"""The report and the unlearning card."""
