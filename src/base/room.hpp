// Room in a vector, had before anything is changed, so that what follows cannot fail for want of host memory. Doubles,
// as push_back() does: vector::reserve() gives just what it is asked for, and room for one more each time would copy
// all elements each time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace gmlake {

// Room for `count` elements in all. Throws std::bad_alloc with nothing changed.
template <class T>
void make_room(std::vector<T>& elements, std::size_t count) {
  if (elements.capacity() < count) elements.reserve(std::max(count, 2 * elements.capacity()));
}

}  // namespace gmlake
