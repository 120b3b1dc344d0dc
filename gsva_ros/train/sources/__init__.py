"""What a model is taught from: one module a kind of data, each a `Source` of samples."""
