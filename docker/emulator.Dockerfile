# syntax=docker/dockerfile:1
# The emulator of S3, SNS, SQS and DynamoDB that compose.yaml runs the farm against.
# docker build -f docker/emulator.Dockerfile -t hevcq-emulator .
ARG BASE_IMAGE=debian:trixie-slim
FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="hevcq emulator" \
      org.opencontainers.image.description="moto's server for trying the farm out; keeps everything in memory"
COPY requirements/emulator.txt /opt/emulator/
# hadolint ignore=DL3008
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/moto \
 && /opt/moto/bin/pip install --no-cache-dir --disable-pip-version-check \
      --require-hashes --requirement /opt/emulator/emulator.txt \
 && useradd --uid 10002 --no-create-home --shell /usr/sbin/nologin emulator
WORKDIR /opt/emulator
COPY tests/support/aws/shims.py docker/emulator.py ./
ENV PATH=/opt/moto/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10002
EXPOSE 5000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=10 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/moto-api/', timeout=4).close()"]
ENTRYPOINT ["python", "emulator.py", "0.0.0.0", "5000"]
