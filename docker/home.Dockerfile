# syntax=docker/dockerfile:1
# For a home or a NAS: the service and its page in one container, as a user of your choice (PUID, PGID).
# docker build -f docker/worker.Dockerfile -t hevcq-worker:0.1.0 .
# docker build -f docker/home.Dockerfile -t hevcq-home:0.1.0 .
# docker compose -f docker/compose.home.yaml up -d
ARG WORKER_IMAGE=hevcq-worker:0.1.0

FROM ${WORKER_IMAGE}
LABEL org.opencontainers.image.title="hevcq home" \
      org.opencontainers.image.description="Looks after the libraries of a home, and serves the page"
# The entry gives up root for PUID and PGID before it starts anything of hevcq's.
# hadolint ignore=DL3002
USER 0
COPY docker/home_entry.py /opt/hevcq-home/hevcq
RUN ln -s hevcq /opt/hevcq-home/hevcq-health \
 && install -d -m 0755 /data /media
ENV PATH=/opt/hevcq-home:/opt/hevcq/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/data \
    HEVCQ_DATA_DIR=/data \
    HEVCQ_CONFIG=/data/hevcq.toml \
    HEVCQ_WEB__HOST=0.0.0.0 \
    HEVCQ_LOG_STYLE=console \
    HEVCQ_LOG_LEVEL=warning
VOLUME ["/data"]
EXPOSE 8790
HEALTHCHECK --interval=60s --timeout=30s --start-period=120s --retries=5 CMD ["hevcq-health"]
ENTRYPOINT ["hevcq"]
CMD ["service"]
