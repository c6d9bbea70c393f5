#include <cassert>
#include <unordered_map>

#include "eviction/policy.h"

namespace bigcast::eviction {
namespace {

// A circular list threaded through the map's nodes, whose addresses stand still: a hit relinks
// one node and allocates nothing.
class Lru final : public Policy {
 public:
  Lru() { head_.newer = head_.older = &head_; }
  Lru(const Lru&) = delete;
  Lru& operator=(const Lru&) = delete;

  std::string_view name() const override { return "lru"; }
  size_t size() const override { return nodes_.size(); }

  void insert(Entry entry, uint64_t size) override {
    const auto [it, is_new] = nodes_.try_emplace(entry);
    assert(is_new);
    if (!is_new) unlink(it->second);
    it->second.entry = entry;
    link_newest(it->second);
  }

  void hit(Entry entry) override {
    const auto it = nodes_.find(entry);
    if (it == nodes_.end()) return;
    unlink(it->second);
    link_newest(it->second);
  }

  void erase(Entry entry) override {
    const auto it = nodes_.find(entry);
    if (it == nodes_.end()) return;
    unlink(it->second);
    nodes_.erase(it);
  }

  std::optional<Entry> evict() override {
    if (nodes_.empty()) return std::nullopt;
    const Entry victim = head_.newer->entry;
    erase(victim);
    return victim;
  }

 private:
  struct Node {
    Entry entry = 0;
    Node* newer = nullptr;
    Node* older = nullptr;
  };

  static void unlink(Node& node) {
    node.older->newer = node.newer;
    node.newer->older = node.older;
  }

  void link_newest(Node& node) {
    node.newer = &head_;
    node.older = head_.older;
    head_.older->newer = &node;
    head_.older = &node;
  }

  Node head_;  // head_.newer is the oldest entry, head_.older the newest
  std::unordered_map<Entry, Node> nodes_;
};

}  // namespace

std::unique_ptr<Policy> make_lru() { return std::make_unique<Lru>(); }

std::unique_ptr<Policy> make_policy(std::string_view name) {
  if (name == "lru") return make_lru();
  return nullptr;
}

}  // namespace bigcast::eviction
