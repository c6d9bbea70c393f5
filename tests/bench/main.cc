// What scripts/bench measures where Python would distort it; each command prints one JSON object.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <stdexcept>

#include "tests/bench/copies.h"
#include "tests/bench/disk.h"
#include "tests/bench/latency.h"
#include "tests/bench/mapped.h"
#include "tests/bench/policy_cost.h"
#include "tests/bench/round_trips.h"

namespace {

using bigcast::bench::Copied;

void print(const Copied& copied) {
  std::printf("{\"seconds\":%.6f,\"sender_cpu_s\":%.6f,\"receiver_cpu_s\":%.6f}\n", copied.seconds,
              copied.sender_cpu_s, copied.receiver_cpu_s);
}

void print(const bigcast::Result<bigcast::bench::Latency>& latency) {
  if (!latency) throw std::runtime_error(latency.error().to_string());
  std::printf("{\"p50_us\":%.2f,\"p99_us\":%.2f,\"p999_us\":%.2f,\"calls_per_s\":%.1f",
              latency->p50_us, latency->p99_us, latency->p999_us, latency->calls_per_s);
  if (const auto& running = latency->running) {
    std::printf(",\"running_p50_us\":%.2f,\"running_p99_us\":%.2f,\"stood_still\":%.4f",
                running->p50_us, running->p99_us, running->stood_still);
  }
  std::printf("}\n");
}

void print(const bigcast::Result<bigcast::bench::DiskSpeeds>& speeds) {
  if (!speeds) throw std::runtime_error(speeds.error().to_string());
  const auto one = [](const char* name, const bigcast::bench::DiskSpeed& speed, const char* end) {
    std::printf("\"%s_s\":%.6f,\"%s_cpu_s\":%.6f%s", name, speed.seconds, name, speed.cpu_s, end);
  };
  std::printf("{");
  one("raw_write", speeds->raw_write, ",");
  one("demote", speeds->demote, ",");
  one("raw_read", speeds->raw_read, ",");
  one("promote", speeds->promote, "}\n");
}

void print(const std::optional<bigcast::bench::PolicyCost>& cost) {
  if (!cost) throw std::runtime_error("no such policy");
  std::printf("{\"hit_ns\":%.1f,\"stream_ns\":%.1f,\"miss_ns\":%.1f}\n", cost->hit_ns,
              cost->stream_ns, cost->miss_ns);
}

void print(const bigcast::Result<bigcast::bench::MappedRead>& read) {
  if (!read) throw std::runtime_error(read.error().to_string());
  std::printf("{\"first_s\":%.6f,\"second_s\":%.6f,\"fresh_s\":%.6f,\"retained_s\":%.6f}\n",
              read->first_s, read->second_s, read->fresh_s, read->retained_s);
}

int run(int argc, char** argv) {
  CLI::App app("the parts of scripts/bench that are not Python", "bigcast-bench");
  app.require_subcommand(1);
  uint64_t size = 0;
  bool via_buffer = false;
  auto* socket = app.add_subcommand("raw-socket", "resident bytes through a TCP connection");
  socket->add_option("size", size, "bytes")->required();
  socket->add_flag("--via-buffer", via_buffer, "the sender copies into a buffer first");
  socket->callback([&] { print(bigcast::bench::copy_by_socket(size, via_buffer)); });
  auto* pread = app.add_subcommand("pread-digest", "resident bytes by pread, and their XXH3");
  pread->add_option("size", size, "bytes")->required();
  pread->callback([&] { print(bigcast::bench::copy_by_pread(size)); });
  bigcast::bench::LatencyOptions options;
  auto* latency = app.add_subcommand("latency", "opening a blob, up to its first chunk");
  latency->add_option("server", options.server, "HOST:PORT or unix:PATH")->required();
  latency->add_option("namespace", options.name_space, "of the blob")->required();
  latency->add_option("name", options.name, "of the blob")->required();
  latency->add_option("--clients", options.clients, "at once")->check(CLI::Range(1, 1024));
  latency->add_option("--count", options.count, "calls of each")->check(CLI::Range(1, 1 << 24));
  latency->add_flag("--locate", options.locate_only, "only ask where the first chunk is");
  latency->add_flag("--stalls", options.watch_stalls, "see when the machine stands still");
  latency->callback([&] { print(bigcast::bench::measure_latency(options)); });
  bigcast::bench::RoundTripOptions trips;
  auto* round_trips = app.add_subcommand("round-trips", "raw sockets between two processes");
  round_trips->add_flag("--tcp", trips.tcp, "else Unix sockets");
  round_trips->add_option("--clients", trips.clients, "at once")->check(CLI::Range(1, 1024));
  round_trips->add_option("--count", trips.count, "of each")->check(CLI::Range(1, 1 << 24));
  round_trips->add_option("--request", trips.request_bytes, "bytes of each request")->required();
  round_trips->add_option("--answer", trips.answer_bytes, "bytes; one for each trip")->required();
  round_trips->callback([&] { print(bigcast::bench::measure_round_trips(trips)); });
  auto* mapped = app.add_subcommand("mapped-read", "a mapped blob, and a memfd of our own");
  mapped->add_option("server", options.server, "unix:PATH")->required();
  mapped->add_option("namespace", options.name_space, "of the blob")->required();
  mapped->add_option("name", options.name, "of the blob")->required();
  mapped->callback([&] {
    print(bigcast::bench::measure_mapped(options.server, options.name_space, options.name));
  });
  std::string disk_path;
  auto* rows = app.add_subcommand("index-rows", "fill a disk tier with rows of durable chunks");
  rows->add_option("disk", disk_path, "a fresh directory")->required();
  rows->add_option("rows", size, "how many")->required();
  rows->callback([&] {
    const auto written = bigcast::bench::write_index_rows(disk_path, size);
    if (!written) throw std::runtime_error(written.error().to_string());
  });
  auto* disk = app.add_subcommand("disk-tier", "chunks to and from disk, and a raw file");
  disk->add_option("disk", disk_path, "a directory")->required();
  disk->add_option("size", size, "bytes, a multiple of 4 MiB")->required();
  uint32_t threads = 1;
  disk->add_option("--threads", threads, "at once")->check(CLI::Range(1, 64));
  disk->callback([&] { print(bigcast::bench::measure_disk(disk_path, size, threads)); });
  std::string policy;
  uint64_t chunks = 1'000'000;
  auto* cost = app.add_subcommand("policy-cost", "what a policy takes for each read");
  cost->add_option("policy", policy, "its name")->required();
  cost->add_option("--chunks", chunks, "resident")->check(CLI::Range(1, 1 << 28));
  cost->callback([&] { print(bigcast::bench::measure_policy(policy, chunks)); });
  CLI11_PARSE(app, argc, argv);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bigcast-bench: %s\n", error.what());
    return 1;
  }
}
