"""Programs that make what is bundled; not part of the package."""
