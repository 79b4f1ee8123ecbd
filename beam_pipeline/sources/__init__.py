"""Sources of images: a batch lists them, a stream watches for them."""
