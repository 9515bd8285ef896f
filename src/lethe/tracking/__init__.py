"""From a run to MLflow. The only package that imports mlflow."""
