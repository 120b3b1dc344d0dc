"""Research data sets in the folders that the official code reads: what evaluation and training share."""
