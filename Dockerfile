# syntax=docker/dockerfile:1
# Two images: `pgkeep` (the default) with the client programs of PostgreSQL 14 to 18, and `drill` with a server for restores besides.
#   docker build -t pgkeep --build-arg PGKEEP_COMMIT="$(git rev-parse --short=12 HEAD)" .
#   docker build -t pgkeep-drill --target drill .
#   docker run --rm -e DATABASE_URL -v backups:/backups pgkeep backup --storage /backups

FROM rust:1.95-bookworm AS build
WORKDIR /pgkeep
COPY Cargo.toml Cargo.lock build.rs config.example.yaml ./
COPY assets assets
COPY benches benches
COPY crates crates
COPY deploy deploy
COPY src src
# There is no git in here, so the commit comes from outside.
ARG PGKEEP_COMMIT=
ARG SOURCE_DATE_EPOCH=
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/pgkeep/target \
    cargo build --profile dist --locked --features sentry --bin pgkeep && install -m 755 target/dist/pgkeep /usr/local/bin/pgkeep

FROM debian:bookworm-slim AS clients
# The key of PostgreSQL's own packages, as https://wiki.postgresql.org/wiki/Apt says.
ADD --chmod=644 https://www.postgresql.org/media/keys/ACCC4CF8.asc /usr/share/postgresql-common/pgdg/apt.postgresql.org.asc
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && echo "deb [signed-by=/usr/share/postgresql-common/pgdg/apt.postgresql.org.asc] https://apt.postgresql.org/pub/repos/apt bookworm-pgdg main" \
        > /etc/apt/sources.list.d/pgdg.list \
    && apt-get update \
    && apt-get install -y --no-install-recommends postgresql-client-14 postgresql-client-15 postgresql-client-16 \
        postgresql-client-17 postgresql-client-18 \
    && rm -rf /var/lib/apt/lists/*
# initdb wants a user that has a name.
RUN useradd --uid 10001 --user-group --create-home --home-dir /home/pgkeep --shell /usr/sbin/nologin pgkeep \
    && install -d -o pgkeep -g pgkeep -m 700 /backups
COPY --from=build /usr/local/bin/pgkeep /usr/local/bin/pgkeep

FROM clients AS drill
# hadolint ignore=DL3008
RUN mkdir -p /etc/postgresql-common \
    && echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf \
    && apt-get update \
    && apt-get install -y --no-install-recommends postgresql-18 \
    && rm -rf /var/lib/apt/lists/*
USER 10001:10001
WORKDIR /home/pgkeep
ENTRYPOINT ["pgkeep"]
CMD ["drill"]

FROM clients AS pgkeep
USER 10001:10001
WORKDIR /home/pgkeep
ENTRYPOINT ["pgkeep"]
CMD ["--help"]
