"""The job: `python -m beam_pipeline` finds threats in security-camera images.

Nothing is imported here, so that `--help` answers before Beam and TensorFlow are loaded.
"""
