// Mapping and unmapping the pages of a range. Callable from the replaying thread.
#include "replay/page_range.hpp"

#include <span>

#include "base/check.hpp"

namespace gmlake::replay {

Result<std::unique_ptr<PageRange>> PageRange::make(driver::Driver& driver, driver::Stream stream, std::uint64_t bytes,
                                                   std::uint64_t page_bytes) {
  const std::uint64_t rounded = (bytes + page_bytes - 1) / page_bytes * page_bytes;
  const Result<driver::Address> address = driver.reserve(rounded, 0);
  if (!address) return address.error();
  return std::unique_ptr<PageRange>(new PageRange(driver, stream, *address, rounded, page_bytes));
}

PageRange::~PageRange() {
  // Nobody is left to hear of a failure here; the driver's own counts show it.
  for (std::uint64_t page = 0; page < pages_.size(); ++page) {
    if (pages_[page] == driver::Handle::none) continue;
    static_cast<void>(driver_.unmap(page_address(page), page_bytes_).ok());
    static_cast<void>(driver_.release(pages_[page]).ok());
  }
  static_cast<void>(driver_.address_free(address_, bytes_).ok());
}

Result<std::uint64_t> PageRange::map(AddressSpan span) {
  const std::uint64_t begin = (span.address - address_) / page_bytes_;
  const std::uint64_t end = (span.address + span.bytes - address_ + page_bytes_ - 1) / page_bytes_;
  GMLAKE_CHECK_EQ(page_address(begin), span.address);
  if (Status created = create_pages(begin, end); !created) return created.error();
  if (Status mapped = map_pages(begin, end); !mapped) {
    release_pages(begin, end);
    return mapped.error();
  }
  return (end - begin) * page_bytes_;
}

Status PageRange::unmap(AddressSpan span, AddressSpan& gone) {
  const std::uint64_t begin = (span.address - address_ + page_bytes_ - 1) / page_bytes_;
  const std::uint64_t end = (span.address + span.bytes - address_) / page_bytes_;
  gone = {page_address(begin), 0};
  if (begin >= end) return {};
  if (Status waited = wait_for_stream(); !waited) return waited;
  for (std::uint64_t page = begin; page < end; ++page) {
    if (Status unmapped = driver_.unmap(page_address(page), page_bytes_); !unmapped) return unmapped;
    gone.bytes += page_bytes_;
    const driver::Handle handle = pages_[page];
    pages_[page] = driver::Handle::none;
    if (Status released = driver_.release(handle); !released) return released;
  }
  return {};
}

Status PageRange::create_pages(std::uint64_t begin, std::uint64_t end) {
  if (pages_.size() < end) pages_.resize(end, driver::Handle::none);
  driver::MemoryProperties properties;
  properties.location = {driver::Location::Kind::device, stream_.device};
  for (std::uint64_t page = begin; page < end; ++page) {
    const Result<driver::Handle> handle = driver_.create(page_bytes_, properties);
    if (!handle) {
      release_pages(begin, page);
      return handle.error();
    }
    pages_[page] = *handle;
  }
  return {};
}

void PageRange::release_pages(std::uint64_t begin, std::uint64_t end) {
  for (std::uint64_t page = begin; page < end; ++page) {
    static_cast<void>(driver_.release(pages_[page]).ok());
    pages_[page] = driver::Handle::none;
  }
}

// Access is set once for the whole run. What was mapped is unmapped again on a failure.
Status PageRange::map_pages(std::uint64_t begin, std::uint64_t end) {
  Status status;
  std::uint64_t page = begin;
  while (page < end && status) {
    status = driver_.map(page_address(page), page_bytes_, pages_[page]);
    if (status) ++page;
  }
  if (status) {
    status =
        driver_.set_access(page_address(begin), (end - begin) * page_bytes_, std::span<const int>(&stream_.device, 1));
  }
  if (!status && page > begin) {
    static_cast<void>(driver_.unmap(page_address(begin), (page - begin) * page_bytes_).ok());
  }
  return status;
}

Status PageRange::wait_for_stream() {
  const Result<driver::Event> event = driver_.event_create(stream_.device);
  if (!event) return event.error();
  Status status = driver_.event_record(*event, stream_);
  if (status) status = driver_.event_synchronize(*event);
  const Status destroyed = driver_.event_destroy(*event);
  return status ? destroyed : status;
}

}  // namespace gmlake::replay
