"""Statistics of what the job has recorded of cameras, without any I/O."""
