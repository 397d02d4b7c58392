// Makes the n-th `operator new` of this thread throw std::bad_alloc, so that a test can ask of every allocation: what
// if this one fails? A program that uses it compiles failing_new.cpp into itself. Each thread has a count of its own.
#pragma once

#include <cstdint>

namespace gmlake::testing {

// While it lives, allocation number `nth` of this thread, from 1, throws, and with `sticky` each one after it too.
class FailingNew {
 public:
  explicit FailingNew(std::uint64_t nth, bool sticky = false);
  ~FailingNew();
  FailingNew(const FailingNew&) = delete;
  FailingNew& operator=(const FailingNew&) = delete;

  bool reached() const;        // an allocation was made to fail
  std::uint64_t left() const;  // allocations up to the one that fails, that one included; 0 once it has
};

// How many allocations this thread has made and not undone, those under NoFailingNew left out. What one thread makes
// and another deletes spoils it.
std::int64_t held_allocations();

// While it lives, allocations of this thread neither fail nor count.
class NoFailingNew {
 public:
  NoFailingNew();
  ~NoFailingNew();
  NoFailingNew(const NoFailingNew&) = delete;
  NoFailingNew& operator=(const NoFailingNew&) = delete;

 private:
  std::uint64_t left_;
  bool counted_;
};

}  // namespace gmlake::testing
