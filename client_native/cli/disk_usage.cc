#include "client_native/cli/commands.h"
#include "client_native/cli/output.h"

namespace bigcast::cli {

namespace {

void add(Usage& usage, const BlobSummary& blob) {
  usage.blobs++;
  usage.size += blob.size.value_or(0);
  usage.stored_size += blob.stored_size;
  usage.memory_bytes += blob.memory_bytes;
  usage.disk_bytes += blob.disk_bytes;
}

Result<void> print_usage(const CommandLine& line, const Usage& usage) {
  return print(line.json ? json_of(usage) : text_of(usage));
}

// What of a name is before its first '/', with it; empty if it has none.
std::string folder_of(const std::string& name) {
  const size_t slash = name.find('/');
  return slash == std::string::npos ? "" : name.substr(0, slash + 1);
}

}  // namespace

// Blobs come in order of name, so a folder's stand together, and one sum is all that is kept.
Result<void> disk_usage(const CommandLine& line) {
  for (const KeyPattern& pattern : line.listed) {
    BIGCAST_ASSIGN(const auto client, connect(line, pattern.name_space));
    Usage total{.key = pattern.name_space + "/" + pattern.text};
    Usage folder;
    Result<void> printed;
    const auto end_folder = [&] {
      if (folder.blobs > 0) printed = print_usage(line, folder);
      folder = {};
    };
    BIGCAST_TRY(client->list(pattern.prefix(), [&](const BlobSummary& blob) {
      if (!pattern.matches(blob.name)) return true;
      const std::string name = folder_of(blob.name);
      const std::string key = name.empty() ? "" : pattern.name_space + "/" + name;
      if (folder.key != key) end_folder();
      if (!key.empty()) {
        folder.key = key;
        add(folder, blob);
      }
      add(total, blob);
      return printed.has_value();
    }));
    if (printed) end_folder();
    BIGCAST_TRY(printed);
    BIGCAST_TRY(print_usage(line, total));
  }
  return {};
}

}  // namespace bigcast::cli
