#include "capi/handles.hpp"

#include <memory>
#include <new>

namespace gmlake::capi {

constinit HandleTable handles;

HandleTable::Slot& HandleTable::slot(std::uint32_t index) const {
  return (*chunks_[index >> kChunkBits].load(std::memory_order_acquire))[index & ((1u << kChunkBits) - 1)];
}

std::uint32_t HandleTable::take_slot() {
  std::uint64_t head = free_.load(std::memory_order_acquire);
  while (static_cast<std::uint32_t>(head) != 0) {
    const std::uint32_t index = static_cast<std::uint32_t>(head) - 1;
    const std::uint64_t next = slot(index).next_free.load(std::memory_order_relaxed);  // of no use if the head changed
    if (free_.compare_exchange_weak(head, ((head >> 32) + 1) << 32 | next, std::memory_order_acquire)) return index;
  }
  const std::uint32_t index = unused_.load(std::memory_order_relaxed);
  if (index >> kIndexBits != 0) throw std::bad_alloc();
  std::atomic<Chunk*>& place = chunks_[index >> kChunkBits];
  if (place.load(std::memory_order_acquire) == nullptr) {
    auto chunk = std::make_unique<Chunk>();
    Chunk* none = nullptr;
    if (place.compare_exchange_strong(none, chunk.get(), std::memory_order_release)) (void)chunk.release();
  }
  std::uint32_t expected = index;
  return unused_.compare_exchange_strong(expected, index + 1) ? index : take_slot();
}

void HandleTable::put_slot(std::uint32_t index) {
  std::uint64_t head = free_.load(std::memory_order_relaxed);
  std::uint64_t fresh = 0;
  do {
    slot(index).next_free.store(static_cast<std::uint32_t>(head), std::memory_order_relaxed);
    fresh = ((head >> 32) + 1) << 32 | (index + 1);
  } while (!free_.compare_exchange_weak(head, fresh, std::memory_order_release));
}

std::uint64_t HandleTable::add(Kind kind, void* object) {
  const std::uint32_t index = take_slot();
  Slot& taken = slot(index);
  const std::uint64_t handle =
      static_cast<std::uint64_t>(kind) << (kIndexBits + kUseBits) | std::uint64_t{taken.uses++} << kIndexBits | index;
  taken.object.store(object, std::memory_order_relaxed);
  taken.handle.store(handle, std::memory_order_release);
  return handle;
}

void* HandleTable::find(Kind kind, std::uint64_t handle) const {
  if (handle >> (kIndexBits + kUseBits) != static_cast<std::uint64_t>(kind)) return nullptr;
  const std::uint32_t index = static_cast<std::uint32_t>(handle) & ((1u << kIndexBits) - 1);
  if (chunks_[index >> kChunkBits].load(std::memory_order_acquire) == nullptr) return nullptr;
  const Slot& found = slot(index);
  return found.handle.load(std::memory_order_acquire) == handle ? found.object.load(std::memory_order_relaxed)
                                                                : nullptr;
}

void* HandleTable::remove(Kind kind, std::uint64_t handle) {
  void* const object = find(kind, handle);
  if (object == nullptr) return nullptr;
  const std::uint32_t index = static_cast<std::uint32_t>(handle) & ((1u << kIndexBits) - 1);
  if (!slot(index).handle.compare_exchange_strong(handle, 0)) return nullptr;
  if (slot(index).uses != 0) put_slot(index);  // one that was used 2^32 times would repeat its handles
  return object;
}

}  // namespace gmlake::capi
