# The job in an image of its own:
#   docker build --tag beam-threats .
#   docker run --rm --volume "$PWD/pictures:/pictures:ro" --volume "$PWD/results:/results" \
#     beam-threats --input /pictures --output /results
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /app
COPY setup.py pyproject.toml constraints.txt README.md LICENSE ./
COPY rules rules
COPY transforms transforms
COPY beam_pipeline beam_pipeline
RUN pip install --constraint constraints.txt . \
    && useradd --create-home --uid 1000 beam

USER beam
WORKDIR /home/beam
ENTRYPOINT ["python", "-m", "beam_pipeline"]
CMD ["--runner", "DirectRunner"]
