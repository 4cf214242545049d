# GRPO on GPUs: torch, TRL, DeepSpeed and a vLLM that TRL knows; CUDA's libraries come with their Python packages.
# From the checkout: buildah build -f images/training.Dockerfile -t REGISTRY/training:TAG .   (docker works too)
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS packages
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY images/requirements/build.txt images/requirements/training.txt images/requirements/
# DeepSpeed is built from source with torch at hand, and without its CUDA operators, which need nvcc: the optimizer is torch's
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir --require-hashes --no-deps -r images/requirements/build.txt \
    && sed '/^deepspeed==/,/# via/d' images/requirements/training.txt > wheels.txt \
    && sed -n '/^deepspeed==/,/# via/p' images/requirements/training.txt > sources.txt \
    && /opt/venv/bin/pip install --no-cache-dir --require-hashes --no-deps -r wheels.txt \
    && DS_BUILD_OPS=0 /opt/venv/bin/pip install --no-cache-dir --require-hashes --no-deps --no-build-isolation -r sources.txt

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
# Triton compiles its launchers with a C compiler when they are first used
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY --from=packages /opt/venv /opt/venv
# last, so that another version of this project is a small layer and not all packages anew
COPY --from=project /wheels /tmp/wheels
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-index /tmp/wheels/*.whl
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1
USER 65532:65532
CMD ["python3", "-m", "dpe_jobs"]
