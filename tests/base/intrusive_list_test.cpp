// The intrusive list against a std::list, and an element in two lists at once by two pairs of links.
#include "base/intrusive_list.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <vector>

namespace gmlake {
namespace {

struct Element {
  int number = 0;
  ListLinks<Element> links;
  ListLinks<Element> other;
};
using List = IntrusiveList<Element, &Element::links>;
using Other = IntrusiveList<Element, &Element::other>;

std::vector<int> forward(const List& list) {
  std::vector<int> numbers;
  for (const Element* e = list.front(); e != nullptr; e = List::next(e)) numbers.push_back(e->number);
  return numbers;
}

std::vector<int> backward(const List& list) {
  std::vector<int> numbers;
  for (const Element* e = list.back(); e != nullptr; e = List::prev(e)) numbers.push_back(e->number);
  std::reverse(numbers.begin(), numbers.end());
  return numbers;
}

TEST(IntrusiveList, IsEmptyAtFirstAndAfterItsOnlyElementLeft) {
  List list;
  Element element;
  EXPECT_TRUE(list.empty());
  list.push_back(&element);
  EXPECT_EQ(list.front(), &element);
  EXPECT_EQ(list.back(), &element);
  list.erase(&element);
  EXPECT_TRUE(list.empty());
  EXPECT_EQ(list.back(), nullptr);
  EXPECT_EQ(list.size(), 0u);
}

TEST(IntrusiveList, TakesElementsOutAtBothEndsAndInTheMiddle) {
  Element e[5];
  List list;
  for (int i = 0; i < 5; ++i) {
    e[i].number = i;
    list.push_back(&e[i]);
  }
  list.erase(&e[2]);
  EXPECT_EQ(forward(list), (std::vector<int>{0, 1, 3, 4}));
  list.erase(&e[0]);
  list.erase(&e[4]);
  EXPECT_EQ(forward(list), (std::vector<int>{1, 3}));
  EXPECT_EQ(backward(list), (std::vector<int>{1, 3}));
  list.push_front(&e[2]);
  EXPECT_EQ(forward(list), (std::vector<int>{2, 1, 3}));
}

TEST(IntrusiveList, HoldsAnElementOnceForEachPairOfLinks) {
  Element a;
  Element b;
  List list;
  Other other;
  list.push_back(&a);
  list.push_back(&b);
  other.push_back(&b);
  other.push_back(&a);
  list.erase(&a);
  EXPECT_EQ(other.front(), &b);
  EXPECT_EQ(Other::next(&b), &a);
  EXPECT_EQ(other.size(), 2u);
  EXPECT_EQ(list.size(), 1u);
}

TEST(IntrusiveList, AgreesWithADequeUnderRandomPrograms) {
  std::mt19937_64 random(11);
  std::vector<Element> elements(30);
  for (int i = 0; i < 30; ++i) elements[static_cast<std::size_t>(i)].number = i;
  List list;
  std::deque<int> expected;
  for (int step = 0; step < 5000; ++step) {
    Element& element = elements[random() % elements.size()];
    const auto found = std::find(expected.begin(), expected.end(), element.number);
    if (found != expected.end()) {
      list.erase(&element);
      expected.erase(found);
    } else if (random() % 2 == 0) {
      list.push_back(&element);
      expected.push_back(element.number);
    } else {
      list.push_front(&element);
      expected.push_front(element.number);
    }
    ASSERT_EQ(list.size(), expected.size());
    ASSERT_EQ(forward(list), std::vector<int>(expected.begin(), expected.end()));
    ASSERT_EQ(backward(list), std::vector<int>(expected.begin(), expected.end()));
  }
}

}  // namespace
}  // namespace gmlake
