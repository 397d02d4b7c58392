// The two escapes in which protocol 0 of pickle writes strings. Pure functions.
#pragma once

#include <string>
#include <string_view>

namespace gmlake::replay {

// UNICODE: raw text with \uXXXX and \UXXXXXXXX; bytes from 0x80 up are Latin-1. Appends UTF-8 to `out`, at most twice
// as long as the line. False where an escape is cut short or names no character.
bool unescape_raw_unicode(std::string_view line, std::string& out);

// STRING: a quoted literal with \\, \', \", \n, \r, \t, \a, \b, \f, \v, \xXX and octal escapes. Appends the bytes to
// `out`. False where the quotes or an escape are malformed.
bool unescape_quoted(std::string_view line, std::string& out);

}  // namespace gmlake::replay
