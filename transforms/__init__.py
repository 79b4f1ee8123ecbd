"""The steps of the job, one PTransform per module, in their order."""
