#include "server/swarm.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"

namespace bigcast {

uint32_t fetches_at_once(uint32_t chunk_size) {
  return std::clamp(static_cast<uint32_t>(limits::kReceiveReserve / chunk_size),
                    limits::kFetchesMin, limits::kFetchesMax);
}

Swarm::Chunk& Swarm::chunk(uint32_t index) {
  if (index >= chunks_.size()) chunks_.resize(index + 1);
  return chunks_[index];
}

void Swarm::home_has(uint32_t index) { chunk(index).at_home = true; }

// ---- Who is there, and what they have.

Swarm::Member Swarm::join(bool can_serve) {
  members_[next_member_].can_serve = can_serve;
  return next_member_++;
}

void Swarm::leave(Member member) {
  set_silent(member, true);
  MemberState& state = members_.at(member);
  while (!state.flights.empty()) end_flight(state, state.flights.begin()->first);
  members_.erase(member);
  for (auto& [id, other] : members_) other.failed_by.erase(member);
}

void Swarm::set_silent(Member member, bool silent) {
  MemberState& state = members_.at(member);
  if (state.silent == silent) return;
  if (silent) count_all(state, -1);
  state.silent = silent;
  if (!silent) count_all(state, +1);
}

void Swarm::count_all(MemberState& member, int change) {
  for (uint32_t index = 0; member.can_serve && index < member.held.size(); index++) {
    if (member.held[index]) chunk(index).sources += change;
  }
  for (const auto& [index, flight] : member.flights) {
    if (!flight.late) count_flight(member, index, change);
  }
}

void Swarm::count_flight(MemberState& member, uint32_t index, int change) {
  if (member.can_serve) chunk(index).sources += change;
  const auto& holder = member.flights.at(index).holder;
  if (!holder) {
    home_load_ += change;
    member.from_home += change;
  } else if (const auto found = members_.find(*holder); found != members_.end()) {
    found->second.load += change;
  }
}

void Swarm::set_held(MemberState& member, uint32_t index, bool held) {
  if (has(member.held, index) == held) return;
  if (index >= member.held.size()) member.held.resize(index + 1);
  member.held[index] = held;
  if (gives(member)) chunk(index).sources += held ? 1 : -1;
}

void Swarm::end_flight(MemberState& member, uint32_t index) {
  const auto found = member.flights.find(index);
  if (found == member.flights.end()) return;
  const Flight flight = found->second;
  if (!flight.late && !member.silent) count_flight(member, index, -1);
  if (flight.late && flight.holder && members_.contains(*flight.holder)) {
    members_.at(*flight.holder).late--;
  }
  member.flights.erase(found);
}

void Swarm::set_late(MemberState& member, uint32_t index) {
  if (!member.silent) count_flight(member, index, -1);
  Flight& flight = member.flights.at(index);
  flight.late = true;
  if (!flight.holder) return;
  if (const auto found = members_.find(*flight.holder); found != members_.end()) {
    found->second.late++;
  }
}

std::vector<uint32_t> Swarm::coming(Member member) const {
  std::vector<uint32_t> indices;
  for (const auto& [index, flight] : members_.at(member).flights) indices.push_back(index);
  return indices;
}

void Swarm::beat() {
  const double usual = usual_beats_.value_or(limits::kFlightLateBeatsMax);
  const auto late_after =
      std::clamp<uint32_t>(static_cast<uint32_t>(limits::kLateTimesUsual * usual),
                           limits::kFlightLateBeatsMin, limits::kFlightLateBeatsMax);
  for (auto& [id, member] : members_) {
    for (auto& [index, flight] : member.flights) {
      if (++flight.beats > late_after && !flight.late) set_late(member, index);
    }
  }
}

void Swarm::want(Member member, std::vector<uint32_t> wanted) {
  MemberState& state = members_.at(member);
  for (const uint32_t index : wanted) set_held(state, index, false);
  state.wanted = std::move(wanted);
}

void Swarm::gained(Member member, uint32_t index) {
  MemberState& state = members_.at(member);
  if (const auto flight = state.flights.find(index); flight != state.flights.end()) {
    const double beats = flight->second.beats;
    usual_beats_ = usual_beats_ ? (7 * *usual_beats_ + beats) / 8 : beats;
  }
  end_flight(state, index);
  state.failures.erase(index);
  set_held(state, index, true);
}

void Swarm::failed(Member member, uint32_t index, Failure failure) {
  MemberState& state = members_.at(member);
  const auto flight = state.flights.find(index);
  if (flight == state.flights.end()) return;
  const std::optional<Member> holder = flight->second.holder;
  end_flight(state, index);
  if (!holder || failure == Failure::kDeclined) return;
  state.failures[index]++;
  const auto found = members_.find(*holder);
  if (found == members_.end()) return;
  if (failure == Failure::kAbsent) {
    set_held(found->second, index, false);
  } else {
    state.failed_by[*holder].push_back(index);
  }
}

// ---- Who gets what.

std::optional<Swarm::Choice> Swarm::choice_of(const MemberState& member, uint32_t index) const {
  Choice choice{index, chunks_[index].sources, {}};
  if (choice.sources == 0) return std::nullopt;
  choice.load = peer_load_max_;
  bool will_come = false;
  for (const auto& [id, other] : members_) {
    if (&other == &member || !gives(other) || other.late > 0) continue;
    const bool holds = has(other.held, index);
    const auto flight = other.flights.find(index);
    if (!holds && (flight == other.flights.end() || flight->second.late)) continue;
    if (const auto bad = member.failed_by.find(id); bad != member.failed_by.end()) {
      if (bad->second.size() >= limits::kHolderStrikesMax) continue;
      if (std::ranges::find(bad->second, index) != bad->second.end()) continue;
    }
    will_come = true;
    if (!holds || other.load >= choice.load) continue;
    choice.load = other.load;
    choice.holder = id;
  }
  if (!will_come) return std::nullopt;
  return choice;
}

uint32_t Swarm::home_share(const MemberState& member) const {
  const bool others_take = std::ranges::any_of(members_, [&](const auto& entry) {
    const MemberState& other = entry.second;
    return &other != &member && gives(other) && !other.wanted.empty();
  });
  return others_take ? limits::kFreshAtOnce : home_load_max_;
}

std::optional<Swarm::Assignment> Swarm::assign(Member member) {
  MemberState& state = members_.at(member);
  std::optional<uint32_t> from_home;
  std::optional<Choice> from_peer;
  std::optional<Choice> repeat;
  uint32_t ties = 0;
  const auto rank = [](const Choice& choice) { return std::pair(choice.load, choice.sources); };
  for (const uint32_t index : state.wanted) {
    if (index >= chunks_.size() || !chunks_[index].at_home) continue;
    if (state.flights.contains(index) || has(state.held, index)) continue;
    const auto failures = state.failures.find(index);
    const bool given_up =
        failures != state.failures.end() && failures->second >= limits::kChunkFailuresMax;
    const auto choice = given_up ? std::nullopt : choice_of(state, index);
    if (!choice) {
      from_home = std::min(from_home.value_or(index), index);
    } else if (!choice->holder) {
      if (!repeat || choice->sources < repeat->sources) repeat = choice;
    } else if (!from_peer || rank(*choice) < rank(*from_peer)) {
      from_peer = choice;
      ties = 1;
    } else if (rank(*choice) == rank(*from_peer) && random_() % ++ties == 0) {
      from_peer = choice;
    }
  }
  const bool home_gives = home_load_ < home_load_max_ && state.from_home < home_share(state);
  if (from_home && home_gives) return send(state, *from_home, {});
  if (from_peer) {
    const bool home_repeats =
        !from_home && home_load_ < std::min(limits::kFreshAtOnce, from_peer->load);
    return send(state, from_peer->index, home_repeats ? std::nullopt : from_peer->holder);
  }
  if (repeat && home_load_ == 0) return send(state, repeat->index, {});
  return std::nullopt;
}

Swarm::Assignment Swarm::send(MemberState& member, uint32_t index, std::optional<Member> holder) {
  member.flights[index] = Flight{holder};
  if (!member.silent) count_flight(member, index, +1);
  return {index, holder};
}

}  // namespace bigcast
