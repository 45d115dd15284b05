# syntax=docker/dockerfile:1
# One image for every service: `aldis all`, `aldis users`, … It holds the program, what the C library needs, and nothing else.
#   docker build --sbom=true --provenance=true --tag registry.example/aldis:0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" .

ARG RUST=1.95
ARG NODE=22

# The web client, which is compiled into the program.
FROM node:${NODE}-bookworm AS web
WORKDIR /source
COPY crates/web/app crates/web/app
COPY scripts/precompress.mjs scripts/precompress.mjs
WORKDIR /source/crates/web/app
RUN --mount=type=cache,target=/npm \
    npm ci --cache /npm && npm run build && node /source/scripts/precompress.mjs dist

FROM rust:${RUST}-bookworm AS build
# What is compiled in comes from this stage, so BuildKit looks here too for the list of parts (`--sbom=true`).
ARG BUILDKIT_SBOM_SCAN_STAGE=true
WORKDIR /source
COPY . .
COPY --from=web /source/crates/web/app/dist crates/web/app/dist
# The folders of cargo stay with the builder between builds; the program has to leave them in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --locked --release --package aldis \
    && install -D --mode=755 target/release/aldis /image/usr/local/bin/aldis \
    && install -D --mode=644 Cargo.lock /image/usr/share/doc/aldis/Cargo.lock \
    && install -D --mode=644 LICENSE /image/usr/share/doc/aldis/LICENSE \
    && install -d --mode=700 --owner=65532 --group=65532 /image/var/lib/aldis

FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="Aldis" \
      org.opencontainers.image.description="A federated messaging backend" \
      org.opencontainers.image.licenses="AGPL-3.0-or-later" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian12:nonroot"
COPY --from=build /image/ /
# The user `nonroot` of the base, by number: so Kubernetes can tell that it is not root.
USER 65532:65532
ENV ALDIS_CONFIG=/etc/aldis/config/aldis.toml
# clients, operations, federation
EXPOSE 8080 8081 8443
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/aldis"]
CMD ["all"]
