"""Sources of cases: one module per source, each with its command-line arguments and its cases."""
