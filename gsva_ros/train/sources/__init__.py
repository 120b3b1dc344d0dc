"""Sources of training samples: one module per kind of data, each implementing `Source`."""
