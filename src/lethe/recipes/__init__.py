"""What unlearning is: recipes as values, and the methods that make them. Importing this package does not import torch."""
