"""Where units of work run: here, in processes, on a Ray cluster. The only package that starts processes."""
