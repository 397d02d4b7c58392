// What the handles of the C interface stand for, and how a function gets from the one to the other.
#pragma once

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <string_view>

#include "base/process.hpp"
#include "capi/handles.hpp"
#include "capi/status.hpp"
#include "gmlake/allocator.hpp"
#include "gmlake/observe.hpp"
#include "gmlake/vir_block.hpp"

namespace gmlake::capi {

struct AllocatorObject {
  static constexpr Kind kKind = Kind::allocator;
  using Handle = gmlake_allocator*;

  // Until the handle is destroyed; each vir_block and each recorder has a share of its own.
  std::shared_ptr<AllocatorObject> self;
  process::Origin origin;
  std::unique_ptr<Allocator> owned;  // null: the default allocator
  Allocator* allocator = nullptr;
  std::unique_ptr<Recorder> recorder;  // where the options ask for one; destroyed before `owned`
};

struct VirBlockObject {
  static constexpr Kind kKind = Kind::vir_block;
  using Handle = gmlake_vir_block*;

  std::shared_ptr<AllocatorObject> allocator;  // destroyed after `block`
  process::Origin origin;
  std::unique_ptr<VirBlock> block;
};

struct RecorderObject {
  static constexpr Kind kKind = Kind::recorder;
  using Handle = gmlake_recorder*;

  std::shared_ptr<AllocatorObject> allocator;  // destroyed after `recorder`
  process::Origin origin;
  std::unique_ptr<Recorder> recorder;
};

template <class Object>
typename Object::Handle handle_for(Object* object) {
  static_assert(sizeof(typename Object::Handle) == sizeof(std::uint64_t), "a handle takes all bits of a pointer");
  return std::bit_cast<typename Object::Handle>(handles.add(Object::kKind, object));
}

// Finds the object of a handle and calls body(Object&), which returns a gmlake_status, and may throw. Fails where there
// is none, and in the child of a fork.
template <class Object, class Body>
gmlake_status with(typename Object::Handle handle, std::string_view function, Body&& body) noexcept {
  return guarded(function, [&]() -> gmlake_status {
    auto* const object = static_cast<Object*>(handles.find(Object::kKind, std::bit_cast<std::uint64_t>(handle)));
    if (object == nullptr) return fail(GMLAKE_INVALID_VALUE, function, "no such handle, or destroyed already");
    if (object->origin.forked()) return fail(GMLAKE_FORKED, function, "the handle is the parent's");
    return body(*object);
  });
}

// The status of a call of the library. `function` for the text, where it failed.
inline gmlake_status outcome(const Status& status, std::string_view function) {
  return status.ok() ? GMLAKE_OK : fail(status.error(), function);
}

inline gmlake_status outcome(const FileError& error, std::string_view function) {
  return error.ok() ? GMLAKE_OK : fail(GMLAKE_FILE_ERROR, function, error.message);
}

inline gmlake_status null_argument(std::string_view function) {
  return fail(GMLAKE_INVALID_VALUE, function, "a pointer that must point to something is NULL");
}

inline bool has_device(const Allocator& allocator, int device) {
  return device >= 0 && device < allocator.device_count();
}

inline Error no_device(int device) {
  return {ErrorCode::invalid_device, Step::none, static_cast<std::uint64_t>(static_cast<std::int64_t>(device))};
}

// Structs that begin with their size and version. Whether the caller has set the two, as far as can be told: a size
// beyond 64 KiB is of no struct here, but of whatever lay in memory.
constexpr std::size_t kStructHead = 2 * sizeof(std::uint32_t);

template <class Struct>
bool room_for(const Struct& out) {
  static_assert(offsetof(Struct, size) == 0 && offsetof(Struct, version) == sizeof(std::uint32_t));
  return out.size >= kStructHead && out.size <= 1u << 16 && out.version != 0;
}

inline gmlake_status bad_struct(std::string_view function) {
  return fail(GMLAKE_INVALID_VALUE, function, "size and version of the struct must be set");
}

// Copies what both sides know, and zeros what only the caller does. Size and version stay the caller's.
template <class Struct>
void fill(Struct& out, const Struct& known) {
  auto* const bytes = reinterpret_cast<unsigned char*>(&out);
  const std::size_t size = out.size;
  const std::size_t both = std::min(size, sizeof known);
  std::memcpy(bytes + kStructHead, reinterpret_cast<const unsigned char*>(&known) + kStructHead, both - kStructHead);
  std::memset(bytes + both, 0, size - both);
}

}  // namespace gmlake::capi
