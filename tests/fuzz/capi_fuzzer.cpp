// Any bytes as calls of the C interface, with handles and pointers that are right, stale, of another kind or nonsense.
// A few allocators on the model, so that nothing is behind the addresses and nothing waits. A status must be one, a
// call with a handle that is none must be refused, and what was counted in comes out again at the end.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "base/check.hpp"
#include "gmlake/gmlake.h"

namespace {

class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  bool empty() const { return size_ == 0; }
  std::uint8_t byte() {
    if (size_ == 0) return 0;
    --size_;
    return *data_++;
  }
  std::uint64_t number() {  // of any size: small ones most of the time
    std::uint64_t value = 0;
    for (int count = byte() % 9; count > 0; --count) value = value << 8 | byte();
    return value;
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

template <class T>
T* as_pointer(std::uint64_t bits) {
  return reinterpret_cast<T*>(static_cast<std::uintptr_t>(bits));
}

class Caller {
 public:
  explicit Caller(Bytes bytes) : bytes_(bytes) {}

  void run() {
    for (int call = 0; call < 300 && !bytes_.empty(); ++call) one();
    for (const std::uint64_t block : blocks_) see(gmlake_vir_block_destroy(as_pointer<gmlake_vir_block>(block)));
    for (const std::uint64_t allocator : allocators_) {
      see(gmlake_allocator_destroy(as_pointer<gmlake_allocator>(allocator)));
      int count = 0;
      GMLAKE_CHECK(gmlake_device_count(as_pointer<gmlake_allocator>(allocator), &count) == GMLAKE_INVALID_VALUE);
    }
  }

 private:
  static gmlake_status see(gmlake_status status) {
    GMLAKE_CHECK((status >= GMLAKE_OK && status <= GMLAKE_CAPTURED) || status == GMLAKE_FILE_ERROR);
    GMLAKE_CHECK(status == GMLAKE_OK || gmlake_last_error()[0] != '\0');
    return status;
  }
  // One of the values that were seen, whatever it stood for, or any number.
  std::uint64_t any_of(const std::vector<std::uint64_t>& seen) {
    const std::uint8_t choice = bytes_.byte();
    if (choice == 255 || seen.empty()) return bytes_.number();
    if (choice == 254) return seen[choice % seen.size()] ^ bytes_.number();
    return seen[choice % seen.size()];
  }
  gmlake_allocator* allocator() {
    return as_pointer<gmlake_allocator>(any_of(bytes_.byte() == 255 ? blocks_ : allocators_));
  }
  gmlake_vir_block* block() {
    return as_pointer<gmlake_vir_block>(any_of(bytes_.byte() == 255 ? allocators_ : blocks_));
  }
  void* pointer() { return as_pointer<void>(any_of(pointers_)); }
  void* stream() { return as_pointer<void>(bytes_.byte() % 4); }
  gmlake_pool_id pool() { return {static_cast<std::uint64_t>(bytes_.byte()) % 3, 0}; }
  static int chooses(void* stream, void* context) { return stream == context ? 1 : 0; }
  int device() { return bytes_.byte() == 255 ? static_cast<int>(bytes_.number()) : 0; }

  void one() {
    switch (bytes_.byte() % 25) {
      case 0: {
        if (allocators_.size() >= 4) return;
        std::string options;
        for (int count = bytes_.byte() % 24; count > 0; --count) options += static_cast<char>(bytes_.byte());
        if (options.find("record") != std::string::npos) options.clear();  // files of any name are not wanted here
        gmlake_allocator* made = nullptr;
        if (see(gmlake_allocator_create_on("model", options.c_str(), &made)) != GMLAKE_OK) {
          if (see(gmlake_allocator_create_on("model", "limit:1GiB", &made)) != GMLAKE_OK) return;
        }
        allocators_.push_back(reinterpret_cast<std::uintptr_t>(made));
        return;
      }
      case 1:
        see(gmlake_allocator_destroy(allocator()));
        return;
      case 2:
      case 3:
      case 4: {
        void* out = nullptr;
        if (see(gmlake_allocate(allocator(), bytes_.number(), device(), stream(), &out)) != GMLAKE_OK) return;
        if (out != nullptr) pointers_.push_back(reinterpret_cast<std::uintptr_t>(out));
        return;
      }
      case 5:
      case 6:
        see(gmlake_deallocate(allocator(), pointer()));
        return;
      case 7:
        see(gmlake_deallocate_on(allocator(), pointer(), stream()));
        return;
      case 8:
        see(gmlake_record_stream(allocator(), pointer(), stream()));
        return;
      case 9:
        see(gmlake_trim(allocator(), bytes_.number()));
        return;
      case 10: {
        std::array<std::uint8_t, sizeof(gmlake_stats) + 64> room;
        room.fill(0xAB);
        const auto size = static_cast<std::uint32_t>(bytes_.number());
        const std::uint32_t version = bytes_.byte();
        std::memcpy(room.data(), &size, sizeof size);
        std::memcpy(room.data() + sizeof size, &version, sizeof version);
        if (size > room.size()) return;  // the caller's promise of room
        see(gmlake_get_stats(allocator(), device(), reinterpret_cast<gmlake_stats*>(room.data())));
        for (std::size_t i = size < 8 ? 8 : size; i < room.size(); ++i) GMLAKE_CHECK(room[i] == 0xAB);
        return;
      }
      case 11:
        see(gmlake_reset_peaks(allocator(), device()));
        return;
      case 12: {
        int found = 0;
        see(gmlake_device_of(allocator(), pointer(), &found));
        std::size_t bytes = 0;
        see(gmlake_size_of(allocator(), pointer(), &bytes));
        return;
      }
      case 13:
        see(gmlake_set_limit(allocator(), device(), bytes_.number()));
        return;
      case 14: {
        const std::uint64_t bits = bytes_.number();
        double share = 0;
        std::memcpy(&share, &bits, sizeof share);
        see(gmlake_set_limit_fraction(allocator(), device(), share));
        return;
      }
      case 15: {
        if (blocks_.size() >= 64) return;
        gmlake_vir_block* made = nullptr;
        if (see(gmlake_vir_block_create(allocator(), bytes_.number(), device(), stream(), &made)) != GMLAKE_OK) return;
        blocks_.push_back(reinterpret_cast<std::uintptr_t>(made));
        return;
      }
      case 16:
        see(gmlake_vir_block_destroy(block()));
        return;
      case 17: {
        std::array<std::uint64_t, 4> sizes{};
        std::size_t count = 0;
        see(gmlake_vir_block_phy_blocks(block(), sizes.data(), bytes_.byte() % 5, &count));
        void* address = nullptr;
        if (see(gmlake_vir_block_get(block(), &address)) != GMLAKE_OK) return;
        if (address != nullptr) pointers_.push_back(reinterpret_cast<std::uintptr_t>(address));
        return;
      }
      case 18:
        see(gmlake_begin_pool(allocator(), device(), pool(), chooses, stream()));
        return;
      case 19:
        see(gmlake_end_pool(allocator(), device(), pool()));
        return;
      case 20:
        see(gmlake_retain_pool(allocator(), device(), pool()));
        return;
      case 21:
        see(gmlake_release_pool(allocator(), device(), pool()));
        return;
      case 22:
        see(gmlake_forget_stream(allocator(), device(), stream()));
        return;
      case 23:
        see(gmlake_keep_history(allocator(), bytes_.number() % 1'000'000));
        return;
      case 24: {
        std::array<gmlake_event, 5> events{};
        std::uint64_t first = 0;
        std::size_t count = 0;
        const std::size_t capacity = bytes_.byte() % 5;
        if (see(gmlake_get_history(allocator(), device(), bytes_.number(), events.data(), capacity, &first, &count)) !=
            GMLAKE_OK) {
          return;
        }
        GMLAKE_CHECK(count <= capacity && events[4].address == 0);
        see(gmlake_write_pickle_snapshot(allocator(), "/dev/null"));
        return;
      }
    }
  }

  Bytes bytes_;
  std::vector<std::uint64_t> allocators_;
  std::vector<std::uint64_t> blocks_;
  std::vector<std::uint64_t> pointers_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Caller(Bytes(data, size)).run();
  return 0;
}
