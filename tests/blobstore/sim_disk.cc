#include "tests/blobstore/sim_disk.h"

#include <rocksdb/file_system.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/limits.h"

namespace bigcast {
namespace {

tl::unexpected<Error> no_power() { return fail(ErrorCode::kIo, "Input/output error: no power"); }
rocksdb::IOStatus index_no_power() { return rocksdb::IOStatus::IOError("no power"); }
rocksdb::IOStatus index_io_error() { return rocksdb::IOStatus::IOError("Input/output error"); }

}  // namespace

class SimDiskFile final : public DiskFile {
 public:
  SimDiskFile(SimMachine& machine, SimMachine::ExtentPtr extent)
      : machine_(machine), extent_(std::move(extent)) {}

  Result<void> write(uint64_t offset, std::span<const std::byte> bytes) override {
    const std::lock_guard lock(machine_.mutex_);
    if (!machine_.step()) return no_power();
    const bool fails = std::exchange(machine_.failures_.next_write, false);
    if (fails) bytes = bytes.first(bytes.size() / 2 / 512 * 512);  // a short write
    std::copy(bytes.begin(), bytes.end(), extent_->now.begin() + static_cast<ptrdiff_t>(offset));
    extent_->pending.push_back({offset, {bytes.begin(), bytes.end()}});
    if (fails) return fail(ErrorCode::kIo, "Input/output error");
    return {};
  }

  Result<bool> write_from(uint64_t offset, int fd, uint64_t from, uint64_t size) override {
    std::vector<std::byte> bytes(size);
    const ssize_t n = pread(fd, bytes.data(), size, static_cast<off_t>(from));
    if (n != static_cast<ssize_t>(size)) return false;
    BIGCAST_TRY(write(offset, bytes));
    return true;
  }

  Result<void> read(uint64_t offset, std::span<std::byte> buffer) override {
    const std::lock_guard lock(machine_.mutex_);
    if (!machine_.has_power_) return no_power();
    if (std::exchange(machine_.failures_.next_read, false)) {
      return fail(ErrorCode::kIo, "Input/output error");
    }
    std::memcpy(buffer.data(), extent_->now.data() + offset, buffer.size());
    return {};
  }

  Result<void> sync() override {
    const std::lock_guard lock(machine_.mutex_);
    if (!machine_.step()) return no_power();
    if (std::exchange(machine_.failures_.next_sync, false)) {
      machine_.settle(*extent_);  // as Linux does it: not all written, and not dirty any more
      return fail(ErrorCode::kIo, "Input/output error");
    }
    extent_->durable = extent_->now;
    extent_->pending.clear();
    extent_->is_linked = true;
    return {};
  }

 private:
  SimMachine& machine_;
  const SimMachine::ExtentPtr extent_;
};

class SimDisk final : public Disk {
 public:
  explicit SimDisk(SimMachine& machine) : machine_(machine) {}

  Result<std::unique_ptr<DiskFile>> create(const std::string& path, uint64_t size) override {
    const std::lock_guard lock(machine_.mutex_);
    if (!machine_.step()) return no_power();
    if (machine_.failures_.full)
      return fail(ErrorCode::kResourceExhausted, "No space left on device");
    auto extent = std::make_shared<SimMachine::Extent>();
    extent->now.resize(size);
    extent->durable.resize(size);
    machine_.extents_[path] = extent;
    return std::make_unique<SimDiskFile>(machine_, extent);
  }
  Result<Opened> open(const std::string& path) override {
    const std::lock_guard lock(machine_.mutex_);
    const auto& extent = machine_.extents_.at(path);
    return Opened{std::make_unique<SimDiskFile>(machine_, extent), extent->now.size()};
  }
  Result<void> remove(const std::string& path) override {
    const std::lock_guard lock(machine_.mutex_);
    if (!machine_.step()) return no_power();
    const auto it = machine_.extents_.find(path);
    machine_.removed_[path] = it->second;
    machine_.extents_.erase(it);
    return {};
  }
  Result<std::vector<std::string>> list(const std::string& directory) override {
    const std::lock_guard lock(machine_.mutex_);
    std::vector<std::string> names;
    for (const auto& [path, extent] : machine_.extents_) {
      names.push_back(path.substr(directory.size() + 1));
    }
    return names;
  }
  rocksdb::Env* index_environment() override { return machine_.environment_.get(); }

 private:
  SimMachine& machine_;
};

class SimIndexFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  SimIndexFile(SimMachine& machine, std::string path, std::unique_ptr<FSWritableFile>&& file)
      : FSWritableFileOwnerWrapper(std::move(file)), machine_(machine), path_(std::move(path)) {}

  rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                           rocksdb::IODebugContext* debug) override {
    const std::lock_guard lock(machine_.mutex_);
    if (!machine_.step()) return index_no_power();
    if (std::exchange(machine_.failures_.next_index_write, false)) return index_io_error();
    if (machine_.failures_.index_full) {
      const size_t fits = machine_.random_() % (data.size() + 1);
      machine_.index_files_[path_].written += fits;
      const auto written =
          FSWritableFileOwnerWrapper::Append(rocksdb::Slice(data.data(), fits), options, debug);
      if (!written.ok()) return written;
      return machine_.random_() % 2 == 0
                 ? rocksdb::IOStatus::NoSpace("No space left on device")
                 : rocksdb::IOStatus::IOError("While appending", std::strerror(EDQUOT));
    }
    machine_.index_files_[path_].written += data.size();
    return FSWritableFileOwnerWrapper::Append(data, options, debug);
  }
  rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                           const rocksdb::DataVerificationInfo& /*verification*/,
                           rocksdb::IODebugContext* debug) override {
    return Append(data, options, debug);
  }
  rocksdb::IOStatus Sync(const rocksdb::IOOptions& options,
                         rocksdb::IODebugContext* debug) override {
    {
      auto flushed = Flush(options, debug);
      if (!flushed.ok()) return flushed;
    }
    const std::lock_guard lock(machine_.mutex_);
    if (!machine_.step()) return index_no_power();
    if (std::exchange(machine_.failures_.next_index_sync, false)) return index_io_error();
    SimMachine::IndexFile& file = machine_.index_files_[path_];
    file.synced = file.written;
    return rocksdb::IOStatus::OK();
  }
  rocksdb::IOStatus Fsync(const rocksdb::IOOptions& options,
                          rocksdb::IODebugContext* debug) override {
    return Sync(options, debug);
  }
  rocksdb::IOStatus RangeSync(uint64_t /*offset*/, uint64_t /*bytes*/,
                              const rocksdb::IOOptions& /*options*/,
                              rocksdb::IODebugContext* /*debug*/) override {
    return rocksdb::IOStatus::OK();
  }

 private:
  SimMachine& machine_;
  const std::string path_;
};

class SimFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  explicit SimFileSystem(SimMachine& machine)
      : FileSystemWrapper(rocksdb::FileSystem::Default()), machine_(machine) {}
  const char* Name() const override { return "SimFileSystem"; }

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* result,
                                    rocksdb::IODebugContext* debug) override {
    if (!operate()) return index_no_power();
    auto status = FileSystemWrapper::NewWritableFile(path, options, result, debug);
    if (!status.ok()) return status;
    const std::lock_guard lock(machine_.mutex_);
    machine_.index_files_[path] = {};
    *result = std::make_unique<SimIndexFile>(machine_, path, std::move(*result));
    return status;
  }
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to,
                               const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override {
    if (!operate()) return index_no_power();
    {
      const std::lock_guard lock(machine_.mutex_);
      auto file = machine_.index_files_.extract(from);
      machine_.index_files_.erase(to);
      if (!file.empty()) {
        file.key() = to;
        machine_.index_files_.insert(std::move(file));
      }
    }
    return FileSystemWrapper::RenameFile(from, to, options, debug);
  }
  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override {
    if (!operate()) return index_no_power();
    return FileSystemWrapper::DeleteFile(path, options, debug);
  }

 private:
  bool operate() {
    const std::lock_guard lock(machine_.mutex_);
    return machine_.step();
  }
  SimMachine& machine_;
};

SimMachine::SimMachine(uint64_t seed) : random_(seed) {
  environment_ = rocksdb::NewCompositeEnv(std::make_shared<SimFileSystem>(*this));
}
SimMachine::~SimMachine() = default;

std::unique_ptr<Disk> SimMachine::disk() { return std::make_unique<SimDisk>(*this); }

uint64_t SimMachine::below(uint64_t bound) {
  const std::lock_guard lock(mutex_);
  return random_() % bound;
}

void SimMachine::cut_power_after(uint64_t operations) {
  const std::lock_guard lock(mutex_);
  operations_left_ = operations;
}

bool SimMachine::has_power() {
  const std::lock_guard lock(mutex_);
  return has_power_;
}

bool SimMachine::step() {
  if (operations_left_ == 0) has_power_ = false;
  if (has_power_) --operations_left_;
  return has_power_;
}

// Some of the pending writes reach the disk, in pieces of a sector.
void SimMachine::settle(Extent& extent) {
  for (const Write& write : extent.pending) {
    const uint64_t whole = write.bytes.size() / 512;
    const uint64_t choice = random_() % 3;
    const uint64_t sectors = choice == 0 ? 0 : choice == 1 ? whole : random_() % (whole + 1);
    std::copy_n(write.bytes.begin(), sectors * 512,
                extent.durable.begin() + static_cast<ptrdiff_t>(write.offset));
  }
  extent.pending.clear();
}

void SimMachine::crash() {
  const std::lock_guard lock(mutex_);
  for (auto& [path, extent] : removed_) {
    if (random_() % 2 == 0) extents_.emplace(path, extent);
  }
  removed_.clear();
  for (auto it = extents_.begin(); it != extents_.end();) {
    settle(*it->second);
    it->second->now = it->second->durable;
    const bool vanishes = !it->second->is_linked && random_() % 2 == 0;
    it = vanishes ? extents_.erase(it) : std::next(it);
  }
  for (const auto& [path, file] : index_files_) {
    std::error_code gone;
    const uint64_t kept = file.synced + random_() % (file.written - file.synced + 1);
    if (std::filesystem::exists(path, gone)) std::filesystem::resize_file(path, kept, gone);
  }
  index_files_.clear();
  has_power_ = true;
  operations_left_ = UINT64_MAX;
  failures_ = {};
}

bool SimMachine::flip_bit() {
  const std::lock_guard lock(mutex_);
  if (extents_.empty()) return false;
  auto it = extents_.begin();
  std::advance(it, random_() % extents_.size());
  Extent& extent = *it->second;
  const uint64_t at = random_() % extent.now.size();
  const auto bit = static_cast<std::byte>(1U << random_() % 8);
  extent.now[at] ^= bit;
  extent.durable[at] ^= bit;
  return true;
}

void SimMachine::set_full(bool full) {
  const std::lock_guard lock(mutex_);
  failures_.full = full;
}

void SimMachine::set_index_full(bool full) {
  const std::lock_guard lock(mutex_);
  failures_.index_full = full;
}

void SimMachine::fail_next_read() {
  const std::lock_guard lock(mutex_);
  failures_.next_read = true;
}

void SimMachine::mend() {
  const std::lock_guard lock(mutex_);
  failures_ = {};
}

void SimMachine::fail_next_write() {
  const std::lock_guard lock(mutex_);
  (random_() % 2 == 0 ? failures_.next_write : failures_.next_index_write) = true;
}

void SimMachine::fail_next_sync() {
  const std::lock_guard lock(mutex_);
  (random_() % 2 == 0 ? failures_.next_sync : failures_.next_index_sync) = true;
}

}  // namespace bigcast
