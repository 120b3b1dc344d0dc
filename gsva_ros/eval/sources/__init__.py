"""Where cases come from: one module a source, each with its command-line arguments and its cases."""
