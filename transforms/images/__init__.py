"""JPEG files: whether they are whole, how they are decoded, and drawing on them."""
