#include "history_contexts.hpp"

#include <algorithm>
#include <cstdint>
#include <optional>

namespace gmlake::torch_adapter {
namespace {

// Kept in one piece of memory that is touched as it fills: 40 bytes each.
constexpr std::size_t kMostEvents = std::size_t{1} << 20;

thread_local std::vector<std::string> compile_contexts;

std::optional<TorchEvent::Action> action_of(HistoryEvent::Action action) {
  switch (action) {
    case HistoryEvent::Action::alloc:
      return TorchEvent::ALLOC;
    case HistoryEvent::Action::free_requested:
      return TorchEvent::FREE_REQUESTED;
    case HistoryEvent::Action::free_completed:
      return TorchEvent::FREE_COMPLETED;
    case HistoryEvent::Action::segment_map:
      return TorchEvent::SEGMENT_MAP;
    case HistoryEvent::Action::segment_unmap:
      return TorchEvent::SEGMENT_UNMAP;
    case HistoryEvent::Action::oom:
      return TorchEvent::OOM;
    default:
      return std::nullopt;  // PyTorch has no event for it
  }
}

}  // namespace

std::size_t HistoryContexts::configure(bool enabled, native::CreateContextFn recorder, std::size_t most,
                                       native::RecordContext when, bool clear,
                                       const std::vector<std::string>& skip_actions) {
  const std::lock_guard lock(mutex_);
  recorder_.store(recorder);
  when_.store(enabled ? when : native::RecordContext::NEVER);
  most_ = std::clamp<std::size_t>(most, 1, kMostEvents);
  skip_actions_ = skip_actions;
  if (!enabled || clear) calls_.clear();
  if (!enabled) live_.clear();
  on_.store(enabled);
  return enabled ? most_ : 0;
}

Context HistoryContexts::gather(native::RecordContext least) const {
  const native::CreateContextFn recorder = recorder_.load();
  return recorder != nullptr && when_.load() >= least ? recorder() : nullptr;
}

void HistoryContexts::remember(c10::DeviceIndex device, Call call) {
  std::deque<Call>& calls = calls_[device];
  calls.push_back(std::move(call));
  if (calls.size() > most_) calls.pop_front();
}

void HistoryContexts::allocated(c10::DeviceIndex device, const void* pointer) {
  Context context = gather(native::RecordContext::STATE);  // may take Python's lock: before ours
  const std::lock_guard lock(mutex_);
  if (!on()) return;
  live_.insert_or_assign(pointer, context);
  if (when_.load() < native::RecordContext::ALLOC) context = nullptr;
  remember(device, {reinterpret_cast<std::uintptr_t>(pointer), false, std::move(context),
                    compile_contexts.empty() ? std::string() : compile_contexts.back()});
}

void HistoryContexts::freed(c10::DeviceIndex device, const void* pointer) {
  Context context = gather(native::RecordContext::ALL);
  Context ended;  // gone after the lock: its end may take Python's
  const std::lock_guard lock(mutex_);
  if (!on()) return;
  if (const auto known = live_.find(pointer); known != live_.end()) {
    ended = std::move(known->second);
    live_.erase(known);
  }
  if (context == nullptr && when_.load() >= native::RecordContext::ALLOC) context = ended;
  remember(device, {reinterpret_cast<std::uintptr_t>(pointer), true, std::move(context),
                    compile_contexts.empty() ? std::string() : compile_contexts.back()});
}

Context HistoryContexts::context_of(const void* pointer) const {
  const std::lock_guard lock(mutex_);
  const auto known = live_.find(pointer);
  return known == live_.end() ? nullptr : known->second;
}

// Events and calls of one address come in the same order. They are matched from the newest on, since the two rings do
// not reach back equally far.
TorchTrace HistoryContexts::trace(c10::DeviceIndex device, const std::vector<HistoryEvent>& events) const {
  const std::lock_guard lock(mutex_);
  std::unordered_map<std::uint64_t, std::vector<const Call*>> allocs;
  std::unordered_map<std::uint64_t, std::vector<const Call*>> frees;
  if (const auto calls = calls_.find(device); calls != calls_.end()) {
    for (const Call& call : calls->second) (call.free ? frees : allocs)[call.address].push_back(&call);
  }
  TorchTrace trace;
  for (auto event = events.rbegin(); event != events.rend(); ++event) {
    const std::optional<TorchEvent::Action> action = action_of(event->action);
    if (!action ||
        std::find(skip_actions_.begin(), skip_actions_.end(), name_of(event->action)) != skip_actions_.end()) {
      continue;
    }
    const Call* call = nullptr;
    if (*action == TorchEvent::ALLOC || *action == TorchEvent::FREE_REQUESTED ||
        *action == TorchEvent::FREE_COMPLETED) {
      auto& table = *action == TorchEvent::ALLOC ? allocs : frees;
      if (const auto known = table.find(event->address); known != table.end() && !known->second.empty()) {
        call = known->second.back();
        if (*action != TorchEvent::FREE_COMPLETED) known->second.pop_back();  // its request is yet to come
      }
    }
    TorchEvent entry =
        torch_event(*action, device, event->address, event->bytes, event->stream,
                    call == nullptr ? nullptr : call->context, call == nullptr ? std::string() : call->compile_context);
    entry.time_.t_ = static_cast<decltype(entry.time_.t_)>(event->time_us);
    trace.push_back(std::move(entry));
  }
  std::reverse(trace.begin(), trace.end());
  return trace;
}

void HistoryContexts::push_compile_context(std::string& text) { compile_contexts.push_back(text); }

void HistoryContexts::pop_compile_context() {
  if (!compile_contexts.empty()) compile_contexts.pop_back();
}

}  // namespace gmlake::torch_adapter
