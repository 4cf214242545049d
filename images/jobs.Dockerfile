# Diagnosis, generation, evaluation, and the init containers that fetch models. From the checkout: buildah build -f images/jobs.Dockerfile -t REGISTRY/jobs:TAG .   (docker works too)
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY images/requirements/build.txt images/requirements/jobs.txt images/requirements/
RUN python3 -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir --require-hashes --no-deps -r images/requirements/build.txt
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir --require-hashes --no-deps -r images/requirements/jobs.txt
COPY pyproject.toml README.md ./
COPY crds crds
COPY operator operator
COPY jobs jobs
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . && /opt/venv/bin/pip install --no-deps --no-index /wheels/*.whl

FROM ${BASE}
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1
USER 65532:65532
CMD ["python3", "-m", "dpe_jobs"]
