# Diagnosis and evaluation with public benchmarks: the jobs, and lmms-eval in an environment of its own beside them.
# From the checkout: buildah build -f images/lmms-eval.Dockerfile -t REGISTRY/lmms-eval:TAG .   (docker works too)
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS packages
WORKDIR /src
COPY images/requirements/jobs.txt images/requirements/
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir --require-hashes --no-deps -r images/requirements/jobs.txt

FROM ${BASE} AS lmms-eval
WORKDIR /src
COPY images/requirements/build.txt images/requirements/lmms-eval.txt images/requirements/
# some of its packages come as sources alone, and are built with what build.txt has
RUN python3 -m venv /opt/lmms-eval && /opt/lmms-eval/bin/pip install --no-cache-dir --require-hashes --no-deps -r images/requirements/build.txt \
    && /opt/lmms-eval/bin/pip install --no-cache-dir --require-hashes --no-deps --no-build-isolation -r images/requirements/lmms-eval.txt

FROM ${BASE} AS project
WORKDIR /src
COPY images/requirements/build.txt images/requirements/
RUN python3 -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir --require-hashes --no-deps -r images/requirements/build.txt
COPY pyproject.toml README.md ./
COPY crds crds
COPY operator operator
COPY jobs jobs
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM ${BASE}
COPY --from=lmms-eval /opt/lmms-eval /opt/lmms-eval
COPY --from=packages /opt/venv /opt/venv
# last, so that another version of this project is a small layer and not all packages anew
COPY --from=project /wheels /tmp/wheels
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-index /tmp/wheels/*.whl
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1
USER 65532:65532
CMD ["python3", "-m", "dpe_jobs"]
