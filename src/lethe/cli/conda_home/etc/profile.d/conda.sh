# What `mlflow run` sources before `conda activate NAME`: the environment that called it stays the active one.
conda() { :; }
