// The handles of the C interface: numbers that stand for objects, so that a handle which is no handle, is of another
// kind, or was destroyed already, is told apart without looking at memory that may be gone.
//
// A handle is the index of a slot, how often the slot had been used before, and the kind of the object. A slot knows
// the handle it stands for now, so looking one up is one comparison. Slots are used again, handles are not. There is no
// lock, which a fork could leave taken: free slots are a list whose head is exchanged atomically, with a count against
// a head that came back meanwhile. Any thread may call anything; who removes a handle sees to it that nobody is using
// it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace gmlake::capi {

enum class Kind : std::uint8_t { allocator = 1, vir_block = 2, recorder = 3 };

class HandleTable {
 public:
  constexpr HandleTable() = default;
  HandleTable(const HandleTable&) = delete;
  HandleTable& operator=(const HandleTable&) = delete;

  // A handle for an object, never 0. Throws std::bad_alloc with nothing changed.
  std::uint64_t add(Kind kind, void* object);
  // The object of a handle; null where it has none.
  void* find(Kind kind, std::uint64_t handle) const;
  // The same, and ends the handle. Of several threads that remove one handle, one gets the object.
  void* remove(Kind kind, std::uint64_t handle);

 private:
  static constexpr std::uint32_t kIndexBits = 24;
  static constexpr std::uint32_t kUseBits = 32;
  static constexpr std::uint32_t kChunkBits = 12;
  static constexpr std::uint32_t kChunks = 1u << (kIndexBits - kChunkBits);

  struct Slot {
    std::atomic<std::uint64_t> handle{0};  // 0: free
    std::atomic<void*> object{nullptr};
    std::uint32_t uses = 0;                   // of whoever took the slot off the list
    std::atomic<std::uint32_t> next_free{0};  // index + 1
  };
  using Chunk = std::array<Slot, 1u << kChunkBits>;

  Slot& slot(std::uint32_t index) const;  // of one that was taken at some time
  std::uint32_t take_slot();
  void put_slot(std::uint32_t index);

  std::array<std::atomic<Chunk*>, kChunks> chunks_{};  // never given back: a handle of any age is looked up
  std::atomic<std::uint64_t> free_{0};                 // index + 1 below, a count of changes above
  std::atomic<std::uint32_t> unused_{0};               // slots from here on were never used
};

// Of the process. Never destroyed: handles are used while it exits, too.
extern constinit HandleTable handles;

}  // namespace gmlake::capi
