"""For Beam's `--setup_file`, and for tools that know no pyproject.toml, which holds everything."""

from setuptools import setup

setup()
