# The command in a small image: built with the pinned toolchain, run without root.
FROM rust:1.95.0-bookworm AS build
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    cargo build --release --locked -p windfall && cp target/release/windfall /windfall

FROM debian:12.13-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libssl3 \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o 65532 -g 65532 /keys
COPY --from=build /windfall /usr/local/bin/windfall
USER 65532:65532
ENTRYPOINT ["windfall"]
CMD ["--help"]
