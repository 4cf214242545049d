# vLLM's own image with this project beside it.
# From the checkout: buildah build -f images/serving.Dockerfile -t REGISTRY/serving:TAG .   (docker works too)
ARG BASE=docker.io/vllm/vllm-openai:v0.32.0
ARG BUILD_BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BUILD_BASE} AS project
WORKDIR /src
COPY images/requirements/build.txt images/requirements/
RUN python3 -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir --require-hashes --no-deps -r images/requirements/build.txt
COPY pyproject.toml README.md ./
COPY crds crds
COPY operator operator
COPY jobs jobs
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM ${BASE}
# /opt/dpe comes after vLLM's packages on the path: where both have one, vLLM's is used
COPY images/requirements/jobs.txt /tmp/requirements.txt
RUN python3 -m pip install --no-cache-dir --target /opt/dpe --require-hashes --no-deps -r /tmp/requirements.txt \
    && echo /opt/dpe > "$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dpe.pth"
# last, so that another version of this project is a small layer and not all packages anew
COPY --from=project /wheels /tmp/wheels
RUN python3 -m pip install --no-cache-dir --target /opt/dpe --no-deps --no-index /tmp/wheels/*.whl
ENV PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT []
CMD ["python3", "-m", "dpe_jobs"]
