# The job's images; docs/docker.md says how to use them.
#
#   docker build --tag beam-threats .                                  every use but the two below
#   docker build --tag beam-threats-submit --target submit .           with Java and Flink's job server
#   docker build --tag beam-threats-dataflow --target dataflow-template .
#
# What others made comes in by these names, so that a mirror, or a test without a registry, can give
# its own. The version of Beam's image is that of apache-beam for Python 3.13 in constraints.txt.
ARG PYTHON_IMAGE=python:3.13-slim-trixie
ARG BEAM_IMAGE=apache/beam_python3.13_sdk:2.77.0
ARG MAVEN_IMAGE=maven:3.9-eclipse-temurin-17
ARG JAVA_IMAGE=eclipse-temurin:17-jre
ARG LAUNCHER_IMAGE=gcr.io/dataflow-templates-base/python313-template-launcher-base:latest

# ---- The package, built apart: its sources stay out of the images. First without its code, in which
# pyproject.toml finds no packages: a wheel that is nothing but its list of requirements.
FROM ${PYTHON_IMAGE} AS package
WORKDIR /package
COPY pyproject.toml constraints.txt ./
RUN touch README.md \
    && pip wheel --no-cache-dir --no-deps --wheel-dir /requirements . \
    && mv constraints.txt /requirements
COPY README.md LICENSE ./
COPY rules rules
COPY transforms transforms
COPY beam_pipeline beam_pipeline
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${BEAM_IMAGE} AS beam

# ---- What every image is made of.
FROM ${PYTHON_IMAGE} AS job

# Others than `beam` may be told to run it (docker run --user, OpenShift): they need a home too.
RUN useradd --uid 1000 --user-group --create-home --home-dir /home/beam beam \
    && chmod 1777 /home/beam

# What the job needs, in a layer of its own: an edit to the code does not install 2 GB anew. Nothing
# reads TensorFlow's headers here, 430 MB that are for compiling operations of one's own.
COPY --from=package /requirements /requirements
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint /requirements/constraints.txt /requirements/*.whl \
    && rm -r "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tensorflow/include" /requirements

# Beam's boot program starts its workers. They run in this very environment, which has all they need:
# otherwise boot makes each a virtual environment, in a place where only root may write.
COPY --from=beam /opt/apache/beam/boot /opt/apache/beam/LICENSE /opt/apache/beam/NOTICE /opt/apache/beam/
COPY --chmod=755 deploy/docker/entrypoint.sh deploy/docker/health.py /opt/beam_pipeline/
# Copied, at the price of its 7 MB twice: not every builder can mount a stage that it built before.
COPY --from=package /wheels /wheels
RUN pip install --no-cache-dir --no-index --no-deps --force-reinstall /wheels/*.whl \
    && rm -r /wheels

# USER is for what asks for a name, as one that is not in /etc/passwd has none.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1 \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    HOME=/home/beam \
    USER=beam
LABEL org.opencontainers.image.title="beam-threats" \
      org.opencontainers.image.description="Finds threats in the pictures of security cameras, on Apache Beam and TensorFlow" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 1000:1000
WORKDIR /home/beam
# Of a worker pool whether it listens; of anything else nothing, as a job that runs is well.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "/opt/beam_pipeline/health.py"]
ENTRYPOINT ["/opt/beam_pipeline/entrypoint.sh"]
CMD ["--runner", "DirectRunner"]

# ---- Flink's job server, as deploy/flink/cluster.py makes it: the one that fits Beam, or where its
# parts can't be had, the one that was tried.
FROM ${MAVEN_IMAGE} AS job-server
WORKDIR /job-server
COPY deploy/flink/job-server .
RUN mvn -B -q -P beam-2.77 package || mvn -B -q package

FROM ${JAVA_IMAGE} AS java

# ---- Submits the job to a Flink cluster: with Java, and the job server's jar.
FROM job AS submit
ENV JAVA_HOME=/opt/java/openjdk PATH=/opt/java/openjdk/bin:${PATH}
COPY --from=java /opt/java/openjdk /opt/java/openjdk
COPY --from=job-server /job-server/target/beam-flink-1.20-job-server.jar /opt/beam_pipeline/flink-job-server.jar
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "beam_pipeline"]
CMD ["--help"]

FROM ${LAUNCHER_IMAGE} AS launcher

# ---- Dataflow: launches a Flex Template, and is the workers' image too.
FROM job AS dataflow-template
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
# As a script beside the package, not within it, whose modules would be importable without its name.
COPY beam_pipeline/__main__.py /opt/beam_pipeline/main.py
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/opt/beam_pipeline/main.py
# The launcher and Dataflow's workers write into directories of their machine that are root's.
# hadolint ignore=DL3002
USER 0:0

# ---- Last, so that a build without --target makes it.
FROM job AS worker
