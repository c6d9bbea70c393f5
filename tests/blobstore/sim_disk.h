#pragma once

#include <rocksdb/env.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "blobstore/disk.h"

namespace bigcast {

// A machine whose disk forgets, at a crash, what was not synced, and which fails as it is told:
// extents in memory, and the index's files below a real directory, seen through `environment`.
// Everything is driven by one seeded generator. Outlives the stores that run on it.
class SimMachine {
 public:
  explicit SimMachine(uint64_t seed);
  ~SimMachine();
  SimMachine(const SimMachine&) = delete;
  SimMachine& operator=(const SimMachine&) = delete;

  std::unique_ptr<Disk> disk();

  // After so many more operations of the disk the power goes: all of them fail.
  void cut_power_after(uint64_t operations);
  bool has_power();
  // The power goes and comes back. Of each write since the last sync all, a part or nothing is
  // there; files and removals of files that were not synced may be undone. Requires: no store is
  // open.
  void crash();
  // One bit of one extent changes; false if there is no extent.
  bool flip_bit();
  void set_full(bool full);
  void set_index_full(bool full);  // its files grow no more
  void fail_next_read();           // of an extent
  void fail_next_write();          // of an extent, or of a file of the index
  void fail_next_sync();
  void mend();                     // none of these is to come any more
  uint64_t below(uint64_t bound);  // from the generator

 private:
  friend class SimDisk;
  friend class SimDiskFile;
  friend class SimIndexFile;
  friend class SimFileSystem;
  using Bytes = std::vector<std::byte>;
  struct Write {
    uint64_t offset;
    Bytes bytes;
  };
  struct Extent {
    Bytes now;      // what a read sees
    Bytes durable;  // what is there after a crash, but for ...
    std::vector<Write> pending;
    bool is_linked = false;
  };
  struct IndexFile {
    uint64_t written = 0;
    uint64_t synced = 0;
  };
  struct Failures {
    bool full = false;
    bool index_full = false;
    bool next_read = false;
    bool next_write = false;
    bool next_sync = false;
    bool next_index_write = false;
    bool next_index_sync = false;
  };
  using ExtentPtr = std::shared_ptr<Extent>;

  bool step();  // Requires: mutex_ held. One operation; false: there is no power for it.
  void settle(Extent& extent);

  std::mutex mutex_;
  std::mt19937_64 random_;
  bool has_power_ = true;
  uint64_t operations_left_ = UINT64_MAX;
  Failures failures_;
  std::map<std::string, ExtentPtr> extents_;
  std::map<std::string, ExtentPtr> removed_;  // not yet for good
  std::map<std::string, IndexFile> index_files_;
  std::unique_ptr<rocksdb::Env> environment_;
};

}  // namespace bigcast
