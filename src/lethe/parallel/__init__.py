"""Units of work in this process, in several, or as tasks of a Ray cluster. The only package that starts processes."""
