# syntax=docker/dockerfile:1
# The command line: docker run --rm -v ~/Videos:/media hevcq-ingest ingest /media
# docker build -f docker/ingest.Dockerfile -t hevcq-ingest .
ARG WORKER_IMAGE=hevcq-worker:0.1.0
FROM ${WORKER_IMAGE}
LABEL org.opencontainers.image.title="hevcq" \
      org.opencontainers.image.description="The hevcq command line"
ENV HEVCQ_LOG_STYLE=console \
    HEVCQ_LOG_LEVEL=warning
HEALTHCHECK NONE
ENTRYPOINT ["hevcq"]
CMD ["--help"]
