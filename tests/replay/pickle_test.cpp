// What the pickle reader understands, what it refuses, and that no input, however made, does it harm.
#include "replay/pickle.hpp"

#include <gtest/gtest.h>

#include <array>
#include <string>

#include "replay/files.hpp"

namespace gmlake::replay {
namespace {

using namespace std::string_literals;

constexpr std::array<std::string_view, 3> kKeys{"a", "b", "list"};

InputResult<PickleDocument> parse(const std::string& pickle) {
  ByteSource source(pickle, "file");
  return PickleDocument::read(source, kKeys);
}

std::string reason(const std::string& pickle) {
  const auto document = parse(pickle);
  return document ? "read" : document.error().reason;
}

TEST(Pickle, ReadsIntegersOfAllWidths) {
  struct Case {
    std::string pickle;
    std::int64_t value;
  };
  for (const auto& [pickle, value] :
       std::vector<Case>{{"K\xff."s, 255},
                         {"M\x00\x80."s, 32768},
                         {"J\xff\xff\xff\xff."s, -1},
                         {"\x8a\x00."s, 0},
                         {"\x8a\x01\x80."s, -128},
                         {"\x8a\x02\xff\x00."s, 255},
                         {"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80."s, std::numeric_limits<std::int64_t>::min()},
                         {"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f."s, std::numeric_limits<std::int64_t>::max()},
                         {"\x8b\x02\x00\x00\x00\xff\x00."s, 255},
                         {"I-12\n."s, -12},
                         {"L34L\n."s, 34},
                         {"L35\n."s, 35}}) {
    const auto document = parse(pickle);
    ASSERT_TRUE(document) << document.error().text();
    EXPECT_EQ(document->as_signed(document->root()), value);
    EXPECT_EQ(document->kind(document->root()), PickleKind::integer);
  }
}

TEST(Pickle, ReadsUnsignedIntegersOf64Bits) {
  for (const std::string& pickle : {"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00."s, "I18446744073709551615\n."s}) {
    const auto document = parse(pickle);
    ASSERT_TRUE(document) << document.error().text();
    EXPECT_EQ(document->as_unsigned(document->root()), ~std::uint64_t{0});
    EXPECT_EQ(document->as_signed(document->root()), std::nullopt);
  }
}

TEST(Pickle, RefusesWiderIntegers) {
  for (const std::string& pickle : {"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x01."s,
                                    "\x8a\x09\xff\xff\xff\xff\xff\xff\xff\x7f\xff."s, "I18446744073709551616\n."s}) {
    EXPECT_EQ(reason(pickle), "holds an integer wider than 64 bits");
  }
}

TEST(Pickle, ReadsFloatsBooleansAndNone) {
  const auto real = parse("G\x3f\xd0\0\0\0\0\0\0."s);
  ASSERT_TRUE(real);
  EXPECT_EQ(real->as_real(real->root()), 0.25);
  const auto line = parse("F1.5\n.");
  ASSERT_TRUE(line);
  EXPECT_EQ(line->as_real(line->root()), 1.5);
  for (const std::string& yes : {"\x88."s, "I01\n."s}) {
    const auto document = parse(yes);
    ASSERT_TRUE(document);
    EXPECT_EQ(document->as_boolean(document->root()), true);
  }
  const auto none = parse("N.");
  ASSERT_TRUE(none);
  EXPECT_EQ(none->kind(none->root()), PickleKind::none);
  EXPECT_EQ(none->as_boolean(none->root()), std::nullopt);
}

TEST(Pickle, ReadsStringsOfAllProtocols) {
  for (const std::string& pickle :
       {"X\x02\0\0\0hi."s, "\x8c\x02hi."s, "\x8d\x02\0\0\0\0\0\0\0hi."s, "U\x02hi."s, "T\x02\0\0\0hi."s, "Vhi\n."s,
        "S'hi'\n."s, "S\"hi\"\n."s, "C\x02hi."s, "B\x02\0\0\0hi."s, "\x96\x02\0\0\0\0\0\0\0hi."s}) {
    const auto document = parse(pickle);
    ASSERT_TRUE(document) << document.error().text();
    EXPECT_EQ(document->as_text(document->root()), "hi");
  }
}

TEST(Pickle, UnescapesTheStringsOfProtocol0) {
  const auto unicode = parse("V\\u20ac\\U0001f600\xe9\\u005c\n."s);
  ASSERT_TRUE(unicode);
  EXPECT_EQ(unicode->as_text(unicode->root()), "\u20ac\U0001f600\u00e9\\");
  const auto quoted = parse(R"(S'\\\'\n\x41\101')"s + "\n.");
  ASSERT_TRUE(quoted);
  EXPECT_EQ(quoted->as_text(quoted->root()), "\\'\nAA");
}

TEST(Pickle, KeepsTheKeysThatAreAskedForAndTheLastOfTwo) {
  const auto document = parse(
      "}(\x8c\x01"
      "bK\x01\x8c\x01zK\x02\x8c\x01"
      "aK\x03\x8c\x01"
      "aK\x04u\x8c\x01"
      "bK\x05s.");
  ASSERT_TRUE(document) << document.error().text();
  const auto root = document->root();
  EXPECT_EQ(document->item_count(root), 2u);
  EXPECT_EQ(document->as_unsigned(*document->field(root, 0)), 4u);
  EXPECT_EQ(document->as_unsigned(*document->field(root, 1)), 5u);
  EXPECT_EQ(document->field(root, 2), std::nullopt);
}

TEST(Pickle, AListMayHoldItselfAndTheMemoSharesNodes) {
  const auto document = parse("]\x94(h\0h\0h\0"s + "e.");
  ASSERT_TRUE(document) << document.error().text();
  int items = 0;
  document->for_each_item(document->root(), [&](PickleValue item) {
    EXPECT_EQ(item, document->root());
    ++items;
    return true;
  });
  EXPECT_EQ(items, 3);
}

TEST(Pickle, ListsThatGrowInTurnsKeepTheirOrder) {
  const auto document = parse(
      "]\x94(K\x01K\x02"
      "e]\x94(K\x09"
      "e0K\x03"
      "ah\x01K\x0a"
      "a0.");
  ASSERT_TRUE(document) << document.error().text();
  std::vector<std::uint64_t> items;
  document->for_each_item(document->root(), [&](PickleValue item) {
    items.push_back(*document->as_unsigned(item));
    return true;
  });
  EXPECT_EQ(items, (std::vector<std::uint64_t>{1, 2, 3}));
}

TEST(Pickle, RefusesEveryOpcodeThatRunsCodeByItsName) {
  const std::vector<std::pair<std::string, std::string>> opcodes{{"c", "GLOBAL"},
                                                                 {"R", "REDUCE"},
                                                                 {"b", "BUILD"},
                                                                 {"i", "INST"},
                                                                 {"o", "OBJ"},
                                                                 {"P", "PERSID"},
                                                                 {"Q", "BINPERSID"},
                                                                 {"\x81", "NEWOBJ"},
                                                                 {"\x82", "EXT1"},
                                                                 {"\x83", "EXT2"},
                                                                 {"\x84", "EXT4"},
                                                                 {"\x92", "NEWOBJ_EX"},
                                                                 {"\x93", "STACK_GLOBAL"},
                                                                 {"\x97", "NEXT_BUFFER"},
                                                                 {"\x98", "READONLY_BUFFER"}};
  for (const auto& [opcode, name] : opcodes) {
    const auto document = parse("\x80\x04" + opcode + "os\nsystem\n.");
    ASSERT_FALSE(document);
    EXPECT_EQ(document.error().text(), "file: at byte 2: opcode " + name + " would run code: refused");
  }
}

TEST(Pickle, EveryOpcodeEitherReadsOrIsRefusedInOneLine) {
  for (int opcode = 0; opcode < 256; ++opcode) {
    for (const std::string& operands : {""s, "\0\0\0\0\0\0\0\0\0"s, "\xff\xff\xff\xff\xff\xff\xff\xff"s, "0\n"s}) {
      for (const std::string& before : {""s, "K\x01"s, "(K\x01K\x01K\x01"s, "](K\x01"s, "}(K\x01K\x01"s}) {
        const auto document = parse(before + static_cast<char>(opcode) + operands + ".");
        if (!document) {
          EXPECT_EQ(document.error().text().find('\n'), std::string::npos);
        }
      }
    }
  }
}

TEST(Pickle, RefusesWhatIsMalformedWithTheReasonAndThePlace) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"", "ends before the pickle's STOP"},
      {".", "STOP with no value on the stack"},
      {"K\x01(.", "STOP with no value on the stack"},
      {"\x80\x06N.", "is of pickle protocol 6, newer than 5"},
      {"\x01", "unknown pickle opcode 0x01"},
      {"\xff", "unknown pickle opcode 0xff"},
      {"J\x01", "ends within an opcode"},
      {"X\xff\xff\xff\xffhi", "claims 4294967295 bytes, more than are left"},
      {"\x8d\xff\xff\xff\xff\xff\xff\xff\xffhi", "claims 18446744073709551615 bytes, more than are left"},
      {"\x8b\xff\xff\xff\xff.", "claims an integer of negative length"},
      {"\x8b\xff\xff\xff\x7f.", "claims 2147483647 bytes, more than are left"},
      {"h\x05.", "gets a memo entry that was never put"},
      {"Nr\xff\xff\xff\xff.", "puts to a memo index beyond any use"},
      {"Np-1\n.", "has a malformed memo index"},
      {"e.", "finds no MARK"},
      {"(e.", "finds no container to fill"},
      {"K\x01(K\x02"
       "e.",
       "fills what is not a list"},
      {"](K\x02u.", "fills what is not a dict"},
      {"}(K\x02u.", "sets a key without value"},
      {"(K\x02"
       "d.",
       "makes a dict with a key without value"},
      {"K\x01"
       "a.",
       "takes more values than are on the stack"},
      {"]K\x01(s.", "takes more values than are on the stack"},
      {"0", "finds no MARK"},
      {"I12", "ends within a line"},
      {"I1x\n.", "has a malformed integer"},
      {"Fone\n.", "has a malformed float"},
      {"S'hi\n.", "has a malformed string"},
      {"S'\\", "ends within a line"},
      {"V\\u12\n.", "has a malformed string"},
      {"V\\Uffffffff\n.", "has a malformed string"},
  };
  for (const auto& [pickle, expected] : cases) EXPECT_EQ(reason(pickle), expected) << pickle;
}

TEST(Pickle, DeepNestingNeedsNoRecursion) {
  std::string nested(1 << 18, ']');
  nested += std::string((1 << 18) - 1, 'a') + ".";
  EXPECT_EQ(reason(nested), "read");
  EXPECT_EQ(reason(std::string(1 << 18, '(') + "N."), "read");
}

TEST(Pickle, TheBudgetStopsPicklesThatHoldMoreThanTheirLength) {
  // An empty list is one byte of input and more than four of memory.
  EXPECT_EQ(reason("(" + std::string(32 << 20, ']') + "l."), "holds more values than a snapshot of its length can");
}

TEST(Pickle, IgnoresWhatFollowsTheStop) { EXPECT_EQ(reason("N.garbage"), "read"); }

}  // namespace
}  // namespace gmlake::replay
