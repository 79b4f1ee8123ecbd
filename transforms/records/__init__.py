"""The records that flow between the steps, and their encodings."""
