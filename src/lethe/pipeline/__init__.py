"""The work of the stages: plan the runs, train what is missing, score, log to MLflow."""
