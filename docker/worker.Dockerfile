# syntax=docker/dockerfile:1
# A worker: Debian's ffmpeg, hevcq in a virtual environment, no root, no shell in the way of signals.
# docker build -f docker/worker.Dockerfile -t hevcq-worker:0.1.0 .
ARG BASE_IMAGE=python:3.11.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/hevcq
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
COPY workers ./workers
RUN /opt/hevcq/bin/pip install .

FROM ${BASE_IMAGE} AS worker
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="hevcq worker" \
      org.opencontainers.image.description="Takes tasks of one profile's queue, encodes, verifies, publishes" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}"
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ffmpeg util-linux \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin hevcq \
 && install -d -o hevcq -g hevcq -m 0700 /scratch
COPY --from=build /opt/hevcq /opt/hevcq
COPY workers /opt/hevcq-workers
ENV PATH=/opt/hevcq/bin:${PATH} \
    HOME=/scratch \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HEVCQ_DATA_DIR=/scratch \
    HEVCQ_LOG_STYLE=json \
    HEVCQ_LOG_LEVEL=info
USER 10001
VOLUME ["/scratch"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s --retries=5 CMD ["hevcq-health"]
ENTRYPOINT ["python", "/opt/hevcq-workers/run.py"]
