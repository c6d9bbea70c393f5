#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "blobstore/disk.h"

namespace bigcast {

// What a FaultyDisk's files do from now on.
struct Faults {
  std::atomic<bool> create_full{false};
  std::atomic<bool> write_full{false};
  std::atomic<bool> write_io{false};
  std::atomic<bool> read_io{false};
  std::atomic<ErrorCode> sync{ErrorCode::kOk};
  std::function<void()> before_write;  // on the caller's thread; set it while nothing writes
  std::function<void()> before_read;
  std::function<void()> before_sync;
};

class FaultyFile final : public DiskFile {
 public:
  FaultyFile(std::unique_ptr<DiskFile> file, Faults& faults)
      : file_(std::move(file)), faults_(faults) {}
  Result<void> write(uint64_t offset, std::span<const std::byte> bytes) override {
    BIGCAST_TRY(may_write());
    return file_->write(offset, bytes);
  }
  Result<bool> write_from(uint64_t offset, int fd, uint64_t from, uint64_t size) override {
    BIGCAST_TRY(may_write());
    return file_->write_from(offset, fd, from, size);
  }
  Result<void> read(uint64_t offset, std::span<std::byte> buffer) override {
    if (faults_.before_read) faults_.before_read();
    if (faults_.read_io) return fail(ErrorCode::kIo, "Input/output error");
    return file_->read(offset, buffer);
  }
  Result<void> sync() override {
    if (faults_.before_sync) faults_.before_sync();
    if (faults_.sync != ErrorCode::kOk) return fail(faults_.sync, "it was not written back");
    return file_->sync();
  }

 private:
  Result<void> may_write() {
    if (faults_.before_write) faults_.before_write();
    if (faults_.write_full) return fail(ErrorCode::kResourceExhausted, "No space left on device");
    if (faults_.write_io) return fail(ErrorCode::kIo, "Input/output error");
    return {};
  }

  std::unique_ptr<DiskFile> file_;
  Faults& faults_;
};

// The real disk, failing as it is told.
class FaultyDisk final : public Disk {
 public:
  explicit FaultyDisk(Faults& faults) : faults_(faults) {}
  Result<std::unique_ptr<DiskFile>> create(const std::string& path, uint64_t size) override {
    if (faults_.create_full) return fail(ErrorCode::kResourceExhausted, "No space left on device");
    BIGCAST_ASSIGN(auto file, disk_->create(path, size));
    return std::make_unique<FaultyFile>(std::move(file), faults_);
  }
  Result<Opened> open(const std::string& path) override {
    BIGCAST_ASSIGN(auto opened, disk_->open(path));
    opened.file = std::make_unique<FaultyFile>(std::move(opened.file), faults_);
    return opened;
  }
  Result<void> remove(const std::string& path) override { return disk_->remove(path); }
  Result<std::vector<std::string>> list(const std::string& directory) override {
    return disk_->list(directory);
  }

 private:
  std::unique_ptr<Disk> disk_ = make_disk();
  Faults& faults_;
};

}  // namespace bigcast
