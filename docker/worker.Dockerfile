# syntax=docker/dockerfile:1
# A worker, and the page (`hevcq serve`): Debian's Python and ffmpeg, hevcq in a virtual environment, no root, no compiler, no pip,
# no shell in the way of signals. Packages are those of requirements/, each held to its hash.
# docker build -f docker/worker.Dockerfile -t hevcq-worker:0.1.0 .
# To pin the base: --build-arg BASE_IMAGE=debian:trixie-slim@sha256:... (docs/security.md)
ARG BASE_IMAGE=debian:trixie-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ONLY_BINARY=:all:
# hadolint ignore=DL3008
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/*
COPY requirements ./requirements
RUN python3 -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes --requirement requirements/build.txt \
 && python3 -m venv --without-pip /opt/hevcq \
 && /opt/build/bin/pip --python /opt/hevcq/bin/python install \
      --require-hashes --requirement requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
COPY workers ./workers
# The commit becomes a part of the version, which certificates and `hevcq doctor --farm` name.
ARG REVISION=""
RUN sed -i "s/^__version__ = \"[^\"]*/&${REVISION:++g$REVISION}/" src/hevcq/__init__.py \
 && /opt/build/bin/pip --python /opt/hevcq/bin/python check \
 && /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /src/wheel . \
 && /opt/build/bin/pip --python /opt/hevcq/bin/python install --no-deps --no-index /src/wheel/*.whl

FROM ${BASE_IMAGE} AS worker
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="hevcq worker" \
      org.opencontainers.image.description="Takes tasks of one profile's queue, encodes, verifies, publishes" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}"
# Graphics drivers, which only a window of ffplay would load, and manuals: 200 MB.
# hadolint ignore=DL3008
RUN printf 'path-exclude=%s\n' '/usr/lib/*/dri/*' '/usr/lib/*/libLLVM*' '/usr/lib/*/libz3.so*' \
      '/usr/lib/*/libgallium*' \
      '/usr/share/doc/*' '/usr/share/man/*' '/usr/share/locale/*' > /etc/dpkg/dpkg.cfg.d/hevcq \
 && apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      ca-certificates ffmpeg python3 util-linux \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log \
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
