#include "bench/xml_text.h"

#include <string>

#include "gtest/gtest.h"

namespace pregate {
namespace {

constexpr char kReplaced[] = "\uFFFD";

TEST(XmlText, LeavesTextAsItIs) {
  EXPECT_EQ(XmlText(""), "");
  EXPECT_EQ(XmlText("gpt-oss-20b, größer, 模型, \U0001F600\t\n"),
            "gpt-oss-20b, größer, 模型, \U0001F600\t\n");
}

TEST(XmlText, EscapesMarkup) {
  EXPECT_EQ(XmlText("</text><script a=\"b\">&amp;"),
            "&lt;/text&gt;&lt;script a=&quot;b&quot;&gt;&amp;amp;");
}

TEST(XmlText, ReplacesWhatXmlHasNoCharacterFor) {
  EXPECT_EQ(XmlText(absl::string_view("\0", 1)), kReplaced);
  EXPECT_EQ(XmlText("a\x1b[31mb"), "a" + std::string(kReplaced) + "[31mb");
  EXPECT_EQ(XmlText("\xEF\xBF\xBF"), std::string(kReplaced) + kReplaced + kReplaced) << "U+FFFF";
}

TEST(XmlText, ReplacesEachByteThatIsNoUtf8) {
  EXPECT_EQ(XmlText("\x80"), kReplaced) << "a continuation alone";
  EXPECT_EQ(XmlText("\xC0\xBC"), std::string(kReplaced) + kReplaced) << "an overlong '<'";
  EXPECT_EQ(XmlText("\xE2\x82"), std::string(kReplaced) + kReplaced) << "cut off";
  EXPECT_EQ(XmlText("\xED\xA0\x80"), std::string(kReplaced) + kReplaced + kReplaced)
      << "a surrogate";
  EXPECT_EQ(XmlText("\xF4\x90\x80\x80").size(), 4 * 3u) << "above U+10FFFF";
  EXPECT_EQ(XmlText("\xC3<"), std::string(kReplaced) + "&lt;");
}

}  // namespace
}  // namespace pregate
