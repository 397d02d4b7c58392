// Tables that are read without a lock while others change them, and so may say anything while they do: that there is no
// entry, or another's. Whoever reads one takes the answer for a hint, and makes sure under a lock. For who holds the
// lock under which changes are made they are exact. Values are pointers to what lives at least as long as the table:
// one that was ever put in may come out at any time.
//
// Changes are rare and move entries in place. A table that is full is replaced by one of twice the size; those it
// replaces stay for their readers, and are together no larger than the last.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/check.hpp"
#include "base/room.hpp"

namespace gmlake {

// What both kinds are made of.
template <class T>
class Hints {
 public:
  Hints(const Hints&) = delete;
  Hints& operator=(const Hints&) = delete;

  std::size_t size() const { return size_; }

 protected:
  struct Entry {
    std::atomic<std::uint64_t> key{0};
    std::atomic<T*> value{nullptr};

    std::uint64_t key_now() const { return key.load(std::memory_order_relaxed); }
    // Whoever reads a pointer sees what it points to as it was when it was put in.
    T* value_now() const { return value.load(std::memory_order_acquire); }
    void set(std::uint64_t new_key, T* new_value) {
      key.store(new_key, std::memory_order_relaxed);
      value.store(new_value, std::memory_order_release);
    }
    void set(const Entry& other) { set(other.key_now(), other.value_now()); }
  };
  struct Table {
    explicit Table(std::size_t size)
        : capacity(size),
          shift(static_cast<std::uint32_t>(64 - std::countr_zero(size))),
          entries(std::make_unique<Entry[]>(size)) {}
    const std::size_t capacity;  // a power of two
    const std::uint32_t shift;   // from a hash of 64 bits to a place
    std::atomic<std::size_t> count{0};
    const std::unique_ptr<Entry[]> entries;
  };

  explicit Hints(std::size_t capacity) {
    tables_.push_back(std::make_unique<Table>(capacity));
    published_.store(tables_.back().get(), std::memory_order_release);
  }
  ~Hints() = default;

  // Null unless every entry has this value: then it is the hint for any key, and no table is searched.
  T* only() const { return only_.load(std::memory_order_acquire); }
  // After each change.
  void note_only() {
    T* only = nullptr;
    bool several = false;
    for (std::size_t i = 0; i < table().capacity && !several; ++i) {
      T* const value = table().entries[i].value_now();
      several = value != nullptr && only != nullptr && value != only;
      if (value != nullptr) only = value;
    }
    only_.store(several ? nullptr : only, std::memory_order_release);
  }

  const Table& published() const { return *published_.load(std::memory_order_acquire); }
  Table& table() { return *tables_.back(); }
  const Table& table() const { return *tables_.back(); }
  // In place of the last one, with what `fill` puts in. Throws std::bad_alloc with nothing changed.
  template <class Fill>
  void replace(Fill&& fill) {
    make_room(tables_, tables_.size() + 1);
    auto larger = std::make_unique<Table>(2 * table().capacity);
    fill(table(), *larger);
    tables_.push_back(std::move(larger));
    published_.store(tables_.back().get(), std::memory_order_release);
  }

  std::size_t size_ = 0;

 private:
  std::atomic<T*> only_{nullptr};
  std::atomic<const Table*> published_{nullptr};
  std::vector<std::unique_ptr<Table>> tables_;  // by capacity
};

// By key: a hash table, with open addressing and linear probing, at most half full.
template <class T>
class HintMap : public Hints<T> {
 public:
  HintMap() : Hints<T>(16) {}

  // Null: none. Where all entries have one value, it may be that for any key. From any thread.
  T* find(std::uint64_t key) const {
    if (T* const only = this->only()) return only;
    const Table& table = this->published();
    for (std::size_t i = home(table, key);; i = next(table, i)) {
      T* const value = table.entries[i].value_now();
      if (table.entries[i].key_now() == key || value == nullptr) return value;  // null too where the key is an old one
    }
  }

  // Makes sure that the next insert() touches no heap. Throws std::bad_alloc with nothing changed.
  void reserve_one() {
    if (2 * (this->size_ + 1) <= this->table().capacity) return;
    this->replace([](const Table& from, Table& to) {
      for (std::size_t i = 0; i < from.capacity; ++i) {
        if (from.entries[i].value_now() != nullptr) place(to, from.entries[i].key_now()).set(from.entries[i]);
      }
    });
  }
  void insert(std::uint64_t key, T* value) {  // a new one, for which there is room
    GMLAKE_CHECK(2 * (this->size_ + 1) <= this->table().capacity);
    place(this->table(), key).set(key, value);
    ++this->size_;
    this->note_only();
  }
  void erase(std::uint64_t key) {  // one that is there
    Table& table = this->table();
    std::size_t hole = home(table, key);
    while (table.entries[hole].key_now() != key || table.entries[hole].value_now() == nullptr) hole = next(table, hole);
    // Backward shift: later entries of the same probe run move into the hole, so that no probe breaks off early.
    for (std::size_t i = next(table, hole); table.entries[i].value_now() != nullptr; i = next(table, i)) {
      const std::size_t mask = table.capacity - 1;
      if (((i - home(table, table.entries[i].key_now())) & mask) < ((i - hole) & mask)) continue;
      table.entries[hole].set(table.entries[i]);
      hole = i;
    }
    table.entries[hole].set(0, nullptr);
    --this->size_;
    this->note_only();
  }

 private:
  using typename Hints<T>::Entry;
  using typename Hints<T>::Table;

  static std::size_t home(const Table& table, std::uint64_t key) {
    return static_cast<std::size_t>((key * 0x9E3779B97F4A7C15u) >> table.shift);
  }
  static std::size_t next(const Table& table, std::size_t i) { return (i + 1) & (table.capacity - 1); }
  static Entry& place(Table& table, std::uint64_t key) {
    std::size_t i = home(table, key);
    while (table.entries[i].value_now() != nullptr) i = next(table, i);
    return table.entries[i];
  }
};

// By where ranges begin: a sorted array.
template <class T>
class HintRanges : public Hints<T> {
 public:
  HintRanges() : Hints<T>(8) {}

  // The value of the last range that does not begin behind `key`, or of the first where all do; null where there is
  // none. From any thread.
  T* find(std::uint64_t key) const {
    if (T* const only = this->only()) return only;
    const Table& table = this->published();
    const Entry* at = table.entries.get();
    for (std::size_t count = table.count.load(std::memory_order_relaxed); count > 1;) {
      const std::size_t half = count / 2;
      if (at[half].key_now() <= key) at += half;
      count -= half;
    }
    return at->value_now();
  }

  // Makes sure that the next insert() touches no heap. Throws std::bad_alloc with nothing changed.
  void reserve_one() {
    if (this->size_ < this->table().capacity) return;
    this->replace([](const Table& from, Table& to) {
      for (std::size_t i = 0; i < from.capacity; ++i) to.entries[i].set(from.entries[i]);
      to.count.store(from.capacity, std::memory_order_relaxed);
    });
  }
  void insert(std::uint64_t key, T* value) {  // a new one, for which there is room
    Entry* const entries = this->table().entries.get();
    std::size_t i = this->size_;
    GMLAKE_CHECK(i < this->table().capacity);
    for (; i > 0 && entries[i - 1].key_now() > key; --i) entries[i].set(entries[i - 1]);
    entries[i].set(key, value);
    resize(this->size_ + 1);
  }
  void change(std::uint64_t key, T* value) {  // of one that is there
    this->table().entries[place(key)].set(key, value);
    this->note_only();
  }
  void erase(std::uint64_t key) {  // one that is there
    Entry* const entries = this->table().entries.get();
    for (std::size_t i = place(key); i + 1 < this->size_; ++i) entries[i].set(entries[i + 1]);
    entries[this->size_ - 1].set(0, nullptr);
    resize(this->size_ - 1);
  }

 private:
  using typename Hints<T>::Entry;
  using typename Hints<T>::Table;

  std::size_t place(std::uint64_t key) const {
    const Entry* const entries = this->table().entries.get();
    const Entry* const found = std::lower_bound(
        entries, entries + this->size_, key, [](const Entry& entry, std::uint64_t at) { return entry.key_now() < at; });
    GMLAKE_CHECK(found != entries + this->size_ && found->key_now() == key);
    return static_cast<std::size_t>(found - entries);
  }
  void resize(std::size_t size) {
    this->size_ = size;
    this->table().count.store(size, std::memory_order_relaxed);
    this->note_only();
  }
};

}  // namespace gmlake
