"""Language as people type it: other words for the generator's expressions, and free requests."""
