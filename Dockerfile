# A node in a container: `docker build -t bigcast .`, and docs/OPERATIONS.md for its settings.
# Linted in every run of the tests, but neither built nor run there.
FROM debian:12 AS build
COPY . /src
WORKDIR /src
RUN scripts/package

FROM debian:12-slim
COPY --from=build /src/build/packages/bigcast_*.deb /tmp/bigcast.deb
# Debian's newest fixes of what the package needs, whatever their versions.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install -y --no-install-recommends /tmp/bigcast.deb \
  && rm -rf /tmp/bigcast.deb /var/lib/apt/lists/* \
  && usermod --uid 7420 bigcast \
  && install -d -o bigcast -m 0700 /var/lib/bigcast
# bigcast, by number, as Kubernetes wants it.
USER 7420
VOLUME /var/lib/bigcast
# RPC, and HTTP for probes (/livez, /readyz) and metrics.
EXPOSE 7420 7421
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/bigcastd"]
