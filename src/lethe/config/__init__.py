"""Every key, and how params.yaml and the command line become one configuration."""
