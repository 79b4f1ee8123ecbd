"""The steps of the job, one PTransform a module, in the order in which a picture meets them."""
