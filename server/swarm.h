#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <vector>

namespace bigcast {

// Of chunks by index; those beyond the end are not.
inline bool has(const std::vector<bool>& bits, uint32_t index) {
  return index < bits.size() && bits[index];
}

// How many chunks of a blob are asked at once of its home, of any other holder, and by a relay.
uint32_t fetches_at_once(uint32_t chunk_size);

// Who of a blob's followers fetches which chunk from whom. Kept by the blob's home; pure rules, no
// I/O and no clock.
//
// - A chunk that no follower can pass on, and that none is being sent, is "fresh": it comes from
//   the home, lowest index first, while fewer than twice fetches_at_once are asked of the home,
//   and only kFreshAtOnce by a follower that could get them from another: so that followers soon
//   differ in what they have to give. A node sends what one follower asks of it one after the
//   other: a second chunk is there so that the link is busy while the news of the first travels.
// - Any other chunk comes from the least loaded holder of whom fewer than fetches_at_once are
//   asked; of what the equally loaded have, the rarest chunk first, ties at random.
// - The home repeats a chunk while it sends next to nothing, less than any holder of it: towards
//   the end, when few hold what all still lack. And when fetching it failed kChunkFailuresMax times
//   for that follower.
// - A chunk that is late (limits::kFlightLateBeatsMin) counts as if it were not on its way, and a
//   holder that is late with one is given to nobody: one slow host must not slow down the others.
// - A holder that failed a follower is not given to it again for that chunk, and after
//   kHolderStrikesMax failures not at all. A holder that did not have a chunk no longer counts.
class Swarm {
 public:
  using Member = uint32_t;  // never given again
  enum class Failure : uint8_t { kFailed, kAbsent, kDeclined };
  struct Assignment {
    uint32_t index = 0;
    std::optional<Member> holder;  // none: the home
    bool operator==(const Assignment&) const = default;
  };

  Swarm(uint64_t seed, uint32_t chunk_size)
      : peer_load_max_(fetches_at_once(chunk_size)),
        home_load_max_(2 * peer_load_max_),
        random_(seed) {}

  void home_has(uint32_t index);

  // can_serve: others can reach it.
  Member join(bool can_serve);
  // Its chunks, and those on their way to it, no longer count.
  void leave(Member member);
  // Replaces what it wants. It need not be at home yet.
  void want(Member member, std::vector<uint32_t> wanted);
  void gained(Member member, uint32_t index);
  void failed(Member member, uint32_t index, Failure failure);
  // A silent member is as good as gone, until it is not: what it was given is given to others.
  void set_silent(Member member, bool silent);
  // Time passes: call it each limits::kFollowerBeatMs.
  void beat();
  bool is_receiving(Member member) const { return !members_.at(member).flights.empty(); }

  // Something to fetch for the member now: never what is on its way to it already.
  std::optional<Assignment> assign(Member member);

  // For show: what the member has, and what is on its way to it.
  const std::vector<bool>& held(Member member) const { return members_.at(member).held; }
  std::vector<uint32_t> coming(Member member) const;

  size_t size() const { return members_.size(); }
  uint32_t home_load() const { return home_load_; }

 private:
  struct Flight {
    std::optional<Member> holder;
    uint32_t beats = 0;
    bool late = false;
  };
  struct MemberState {
    bool can_serve = false;
    bool silent = false;
    std::vector<bool> held;
    std::vector<uint32_t> wanted;
    std::map<uint32_t, Flight> flights;                 // chunks on their way
    uint32_t from_home = 0;                             // of flights, not late
    uint32_t late = 0;                                  // chunks that it is late to send to others
    uint32_t load = 0;                                  // chunks that it sends to others
    std::map<Member, std::vector<uint32_t>> failed_by;  // holder -> chunks, see kHolderStrikesMax
    std::map<uint32_t, uint32_t> failures;              // chunk -> how often
  };
  struct Chunk {
    bool at_home = false;
    uint32_t sources = 0;  // members that hold it, or receive it, and can pass it on
  };
  // A chunk that followers can pass on, or soon can.
  struct Choice {
    uint32_t index = 0;
    uint32_t sources = 0;
    std::optional<Member> holder;  // the least loaded one with room to send it, if any
    uint32_t load = 0;             // ... and what it sends already
  };

  Chunk& chunk(uint32_t index);
  static bool gives(const MemberState& member) { return member.can_serve && !member.silent; }
  void set_held(MemberState& member, uint32_t index, bool held);
  // Counts a flight that is not late, of a member that is not silent, in, or out again.
  void count_flight(MemberState& member, uint32_t index, int change);
  void set_late(MemberState& member, uint32_t index);
  void count_all(MemberState& member, int change);
  void end_flight(MemberState& member, uint32_t index);
  // Nothing: it is the home's turn.
  std::optional<Choice> choice_of(const MemberState& member, uint32_t index) const;
  // How many chunks the home may send to it at once.
  uint32_t home_share(const MemberState& member) const;
  Assignment send(MemberState& member, uint32_t index, std::optional<Member> holder);

  const uint32_t peer_load_max_;
  const uint32_t home_load_max_;
  std::map<Member, MemberState> members_;
  std::vector<Chunk> chunks_;
  uint32_t home_load_ = 0;
  std::optional<double> usual_beats_;  // moving average of the flights that arrived
  Member next_member_ = 0;
  std::mt19937_64 random_;
};

}  // namespace bigcast
