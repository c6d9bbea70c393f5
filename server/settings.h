#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "server/config.h"

namespace bigcast {

// One thing that a node can be told. The table of these is all there is: flags, environment
// variables, keys of the TOML file, `--help`, docs/bigcastd.toml and the table in docs/CONFIG.md
// are made from it. To add a setting: a member of Config, a row here, the two documents again
// (tests/server/config_test.cc says how).
struct Setting {
  const char* section;  // of the documents; rows of one section stand together
  const char* key;      // as in TOML; the spellings of flag and variable follow from it
  const char* value;    // what kind of value, for people; "true|false" makes a flag without value
  const char* preset;   // its value when nobody sets it; empty: unset
  const char* help;     // one sentence, without a full stop; the preset is added to it
  // Parses one value into its member, or says what is wrong with it (the setting's name is added).
  Result<void> (*set)(Config& config, const std::string& text);
  bool repeats = false;  // may be given several times, and as an array: `set` is called for each
  bool reloads = false;  // SIGHUP applies it to the running node (Node::reload)
  void (*clear)(Config& config) = nullptr;  // of one that repeats: a later source begins anew

  bool is_flag() const { return std::string_view(value) == "true|false"; }
  std::string flag() const;      // "--disk-size"
  std::string variable() const;  // "BIGCAST_DISK_SIZE"
};

std::span<const Setting> settings();

// Null if there is none.
const Setting* find_setting(std::string_view key);

// A TOML file with every setting, commented out, at its preset.
std::string example_config();

// The settings as a table in Markdown.
std::string settings_reference();

// bigcastd(8), with all settings.
std::string man_page();

}  // namespace bigcast
