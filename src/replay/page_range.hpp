// One reserved range of addresses into which pages of one size, one handle each, are mapped and unmapped: the mechanism
// under PyTorch's expandable segments.
// Source: ExpandableSegment of c10/cuda/CUDACachingAllocator.cpp, PyTorch 2.11.
// Not thread-safe: one thread replays.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "driver/driver.hpp"
#include "gmlake/result.hpp"

namespace gmlake::replay {

struct AddressSpan {
  driver::Address address = 0;
  std::uint64_t bytes = 0;
};

class PageRange {
 public:
  // `bytes` is rounded up to whole pages. One driver call.
  static Result<std::unique_ptr<PageRange>> make(driver::Driver& driver, driver::Stream stream, std::uint64_t bytes,
                                                 std::uint64_t page_bytes);
  ~PageRange();  // unmaps and releases what is mapped, without waiting, and gives the addresses back
  PageRange(const PageRange&) = delete;
  PageRange& operator=(const PageRange&) = delete;

  driver::Address address() const { return address_; }
  std::uint64_t bytes() const { return bytes_; }

  // Maps pages from `span.address`, which starts a page, to the end of the page in which the span ends. None of them is
  // mapped. Gives the bytes mapped. On an error nothing has changed.
  Result<std::uint64_t> map(AddressSpan span);

  // Waits for the stream, then unmaps the pages that lie whole inside the span, all of them mapped. `gone` says which
  // went: none, without waiting, where no page lies whole inside; on an error those before it.
  Status unmap(AddressSpan span, AddressSpan& gone);

 private:
  PageRange(driver::Driver& driver, driver::Stream stream, driver::Address address, std::uint64_t bytes,
            std::uint64_t page_bytes)
      : driver_(driver), stream_(stream), address_(address), bytes_(bytes), page_bytes_(page_bytes) {}

  driver::Address page_address(std::uint64_t page) const { return address_ + page * page_bytes_; }
  Status create_pages(std::uint64_t begin, std::uint64_t end);
  void release_pages(std::uint64_t begin, std::uint64_t end);
  Status map_pages(std::uint64_t begin, std::uint64_t end);
  Status wait_for_stream();

  driver::Driver& driver_;
  driver::Stream stream_;
  driver::Address address_;
  std::uint64_t bytes_;
  std::uint64_t page_bytes_;
  std::vector<driver::Handle> pages_;  // up to the highest page ever mapped; none: not mapped
};

}  // namespace gmlake::replay
