// Byte counts as people write them: every unit, the edges of 64 bits, and what is no byte count at all.
#include "gmlake/bytes.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>

namespace gmlake {
namespace {

using namespace literals;

TEST(ParseBytes, ReadsEveryUnitInAnyCase) {
  const struct {
    const char* prefix;
    std::uint64_t unit;
  } cases[] = {{"k", 1_KiB}, {"m", 1_MiB}, {"g", 1_GiB}, {"t", 1_TiB}, {"K", 1_KiB},
               {"M", 1_MiB}, {"G", 1_GiB}, {"T", 1_TiB}, {"", 1_B}};
  for (const auto& [prefix, unit] : cases) {
    for (const char* suffix : {"", "b", "B", "ib", "iB", "IB", "Ib"}) {
      if (*prefix == '\0' && (*suffix == 'i' || *suffix == 'I')) continue;
      for (const char* space : {"", " ", "  "}) {
        const std::string text = std::string("7") + space + prefix + suffix;
        EXPECT_EQ(parse_bytes(text), 7 * unit) << text;
      }
    }
  }
}

TEST(ParseBytes, ReadsFractionsAndCutsThemToWholeBytes) {
  EXPECT_EQ(parse_bytes("1.5g"), 1536_MiB);
  EXPECT_EQ(parse_bytes("0.5 KiB"), 512u);
  EXPECT_EQ(parse_bytes("1.5"), 1u);
  EXPECT_EQ(parse_bytes("0.0001 B"), 0u);
  EXPECT_EQ(parse_bytes("2.25MiB"), 2304_KiB);
}

TEST(ParseBytes, IgnoresSpacesAroundAndLeadingZeros) {
  EXPECT_EQ(parse_bytes("  4096  "), 4096u);
  EXPECT_EQ(parse_bytes(" 0512 MiB "), 512_MiB);
  EXPECT_EQ(parse_bytes("0"), 0u);
}

TEST(ParseBytes, IsExactUpToTheLastByteOf64Bits) {
  EXPECT_EQ(parse_bytes("18446744073709551615"), UINT64_MAX);
  EXPECT_EQ(parse_bytes("18014398509481983K"), UINT64_MAX - 1023);
  EXPECT_EQ(parse_bytes("16777215T"), std::uint64_t{16777215} << 40);
  EXPECT_EQ(parse_bytes("9007199254740993"), 9007199254740993u);  // no double holds it
}

TEST(ParseBytes, RefusesWhatDoesNotFit64Bits) {
  for (const char* text : {"18446744073709551616", "18014398509481984K", "17592186044416M", "17179869184G", "16777216T",
                           "99999999999999999999", "16777216.0T", "18446744073709551616.0", "1e30", "99999999999999.5T",
                           "18446744073709551615.9"}) {
    EXPECT_EQ(parse_bytes(text), std::nullopt) << text;
  }
  EXPECT_EQ(parse_bytes(std::string(500, '9') + ".5"), std::nullopt);
  EXPECT_EQ(parse_bytes(std::string(500, '9')), std::nullopt);
}

TEST(ParseBytes, RefusesWhatIsNoByteCount) {
  for (const char* text :
       {"",     " ",     "MiB",  "-1",       "+1",  "1x",  "1 k k",  "1kk",  "1kbb", "1ibk",  "0x10", "1e3", ".5",
        ".",    "1.2.3", "1..2", "1 2",      "1i",  "1ki", "1 MiBs", "inf",  "nan",  "1,000", "1\t",  "\n1", "1P",
        "1EiB", "1_000", "½",    "1\u00a0K", "--1", "1-",  "1.5.K",  "1K.5", "K1",   "1bk",   "1bb"}) {
    EXPECT_EQ(parse_bytes(text), std::nullopt) << '"' << text << '"';
  }
  EXPECT_EQ(parse_bytes(std::string_view("1\0K", 3)), std::nullopt);
}

TEST(FormatBytes, TakesTheLargestUnitThatKeepsTheNumberAtLeastOne) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(17), "17 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1_KiB), "1.00 KiB");
  EXPECT_EQ(format_bytes(512_KiB), "512.00 KiB");
  EXPECT_EQ(format_bytes(1536_MiB), "1.50 GiB");
  EXPECT_EQ(format_bytes(1_TiB), "1.00 TiB");
  EXPECT_EQ(format_bytes(UINT64_MAX), "16777216.00 TiB");
}

TEST(FormatBytes, NeverRoundsUpTo1024OfAUnit) {
  EXPECT_EQ(format_bytes(1_MiB - 1), "1.00 MiB");
  EXPECT_EQ(format_bytes(1_GiB - 1), "1.00 GiB");
  EXPECT_EQ(format_bytes(1_TiB - 1), "1.00 TiB");
  EXPECT_EQ(format_bytes(1_MiB - 8_KiB), "1016.00 KiB");
  EXPECT_EQ(format_bytes(1_MiB - 6), "1023.99 KiB");
}

TEST(FormatBytes, IsReadBackToWithinHalfOfItsLastDigit) {
  std::mt19937_64 random(20240607);
  for (int i = 0; i < 2000; ++i) {
    const std::uint64_t bytes = random() >> (random() % 64);
    const auto back = parse_bytes(format_bytes(bytes));
    if (bytes > std::uint64_t{1} << 63) continue;  // may round up to 2^64
    ASSERT_TRUE(back.has_value()) << bytes;
    const std::uint64_t apart = *back > bytes ? *back - bytes : bytes - *back;
    EXPECT_LE(apart, bytes / 190 + 1) << bytes;
  }
}

TEST(RoundBytes, GoesToTheNextMultipleAndLeavesMultiplesAlone) {
  EXPECT_EQ(round_up(0, 512), 0u);
  EXPECT_EQ(round_up(1, 512), 512u);
  EXPECT_EQ(round_up(512, 512), 512u);
  EXPECT_EQ(round_up(513, 512), 1024u);
  EXPECT_EQ(round_up(UINT64_MAX - 511, 512), UINT64_MAX - 511);
  EXPECT_EQ(round_down(511, 512), 0u);
  EXPECT_EQ(round_down(UINT64_MAX, 2_MiB), UINT64_MAX - 2_MiB + 1);
}

}  // namespace
}  // namespace gmlake
