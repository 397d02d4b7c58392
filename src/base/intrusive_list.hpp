// A doubly linked list whose links lie in its elements: an element is in at most one list for each pair of links, and
// taking it out needs no search. The list owns nothing. Not thread-safe: the owner's lock covers it.
#pragma once

#include <cstddef>

#include "base/check.hpp"

namespace gmlake {

template <class T>
struct ListLinks {
  T* prev = nullptr;
  T* next = nullptr;
};

template <class T, ListLinks<T> T::*kLinks>
class IntrusiveList {
 public:
  bool empty() const { return front_ == nullptr; }
  std::size_t size() const { return size_; }
  T* front() const { return front_; }
  T* back() const { return back_; }
  static T* next(const T* element) { return (element->*kLinks).next; }
  static T* prev(const T* element) { return (element->*kLinks).prev; }

  void push_back(T* element) {
    (element->*kLinks) = {back_, nullptr};
    (back_ == nullptr ? front_ : (back_->*kLinks).next) = element;
    back_ = element;
    ++size_;
  }

  void push_front(T* element) {
    (element->*kLinks) = {nullptr, front_};
    (front_ == nullptr ? back_ : (front_->*kLinks).prev) = element;
    front_ = element;
    ++size_;
  }

  void erase(T* element) {
    GMLAKE_DCHECK(size_ > 0);
    ListLinks<T>& links = element->*kLinks;
    (links.prev == nullptr ? front_ : (links.prev->*kLinks).next) = links.next;
    (links.next == nullptr ? back_ : (links.next->*kLinks).prev) = links.prev;
    links = {};
    --size_;
  }

 private:
  T* front_ = nullptr;
  T* back_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace gmlake
