"""Language as people type it: rewordings of generated expressions, and free-form requests."""
