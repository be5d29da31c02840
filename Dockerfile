# rejoinder in a container: one static binary, no shell, no root.
#
#   docker build -t rejoinder .
#   docker run --rm -p 127.0.0.1:11435:11435 -e REJOINDER_UPSTREAM=http://host.docker.internal:11434 \
#     --add-host host.docker.internal:host-gateway rejoinder
#
# Every setting of `rejoinder serve` can be given as REJOINDER_… in the environment. Entries are kept in memory; by
# `-v rejoinder:/data -e REJOINDER_DATA_DIR=/data` in a volume, or by REJOINDER_REDIS_URL in Redis.

# Debian 12 or newer: from glibc 2.34 on a static binary looks up names in /etc/hosts and DNS by itself.
FROM rust:1.95-bookworm AS build
# A command that fails in the middle of a pipe fails the build.
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
COPY . .
# The target is named so that its flags do not reach build scripts, which are run here and are not static. getrandom is told
# to ask the kernel: it finds no function of the C library in a static program, and would read /dev/urandom.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    host="$(rustc -vV | sed -n 's/^host: //p')" \
    && RUSTFLAGS='-C target-feature=+crt-static --cfg getrandom_backend="linux_getrandom"' \
        cargo build --release --locked --bin rejoinder --target "$host" \
    && install -D "target/$host/release/rejoinder" /out/rejoinder \
    && install -d -o 65532 -g 65532 -m 0700 /out/data

FROM scratch
LABEL org.opencontainers.image.title="rejoinder" \
      org.opencontainers.image.description="A transparent caching proxy for OpenAI-, Anthropic- and Ollama-compatible APIs" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/LICENSE /src/THIRD-PARTY-LICENSES /
COPY --from=build /out/rejoinder /rejoinder
# A volume that is mounted here for the first time gets this folder's owner.
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
# Clients come from outside the container. The admin listener stays on the container's own loopback address, where
# the health check reaches it; to publish it, set REJOINDER_ADMIN_LISTEN and a token (deploy/compose.yaml does).
ENV REJOINDER_LISTEN=0.0.0.0:11435
EXPOSE 11435
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["/rejoinder", "healthcheck"]
ENTRYPOINT ["/rejoinder"]
CMD ["serve"]
