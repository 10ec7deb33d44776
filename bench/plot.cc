#include "bench/plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/types/span.h"
#include "bench/xml_text.h"
#include "core/base/status_macros.h"
#include "core/storage/whole_file.h"

namespace pregate {
namespace {

// All in pixels.
constexpr double kWidth = 920;
constexpr double kTop = 48;
constexpr double kRight = 640;  // behind it stands the legend
constexpr double kLegend = kRight + 18;
constexpr double kLegendText = kRight + 48;
constexpr double kLineHeight = 22;
constexpr double kBelow = 60;         // for the numbers and the label of the axis below
constexpr double kChartHeight = 312;  // of lines and heat maps
constexpr double kChartLeft = 70;
constexpr double kCharacterWidth = 6.8;  // about; what a label needs is not known before
constexpr double kBarHeight = 18;
constexpr double kBarGap = 8;  // between categories

constexpr size_t kMostSeries = 8;  // classes c0 … c7 below
constexpr int kShades = 16;        // of a heat map, as opacities of one colour

// Colours that are told apart without seeing red or green (after Okabe & Ito, 2008), the dark
// page's a little lighter.
constexpr char kStyle[] = R"(<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 15px; font-weight: 600 }
.page { fill: #ffffff }
.grid { stroke: #d0d7de; stroke-width: 1 }
.frame { stroke: #57606a; stroke-width: 1; fill: none }
.range { stroke: #24292f; stroke-width: 1.5 }
.heat { fill: #0550ae }
.c0 { stroke: #0072b2; fill: #0072b2 } .c1 { stroke: #d55e00; fill: #d55e00 }
.c2 { stroke: #009e73; fill: #009e73 } .c3 { stroke: #b3589a; fill: #b3589a }
.c4 { stroke: #b58900; fill: #b58900 } .c5 { stroke: #3b9ddd; fill: #3b9ddd }
.c6 { stroke: #6e7781; fill: #6e7781 } .c7 { stroke: #8250df; fill: #8250df }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.page { fill: #0d1117 }
.grid { stroke: #30363d }
.frame { stroke: #8b949e }
.range { stroke: #e6edf3 }
.heat { fill: #79c0ff }
.c0 { stroke: #4aa8e0; fill: #4aa8e0 } .c1 { stroke: #f0883e; fill: #f0883e }
.c2 { stroke: #3fc69a; fill: #3fc69a } .c3 { stroke: #db8ac4; fill: #db8ac4 }
.c4 { stroke: #e3b341; fill: #e3b341 } .c5 { stroke: #a5d6ff; fill: #a5d6ff }
.c6 { stroke: #8b949e; fill: #8b949e } .c7 { stroke: #bc8cff; fill: #bc8cff }
}
svg .bar { stroke: none }
svg .line { fill: none; stroke-width: 2.2 }
.bound { stroke-dasharray: 6 4 }
</style>
)";

std::string NumberText(double value, bool is_share) {
  return is_share ? absl::StrFormat("%.4g %%", 100 * value) : absl::StrFormat("%.6g", value);
}

std::string ColourOf(size_t series) { return absl::StrCat("c", series); }

// Where a stretch of numbers lies on the picture.
struct Scale {
  double from = 0;
  double to = 1;
  double begin = 0;  // pixel of `from`
  double end = 1;    // pixel of `to`
  double operator()(double value) const {
    return begin + (end - begin) * ((value - from) / (to - from));
  }
};

// 1, 2 or 5 times a power of ten: at most about `count` of them make up `length`.
double TickStep(double length, double count) {
  const double power = std::pow(10, std::floor(std::log10(length / count)));
  for (const double step : {1.0, 2.0, 5.0}) {
    if (step * power * count >= length * 0.999) return step * power;
  }
  return 10 * power;
}

// From 0 to a round number that is not below `most`.
Scale ScaleFromZero(const PlotAxis& axis, double most, double begin, double end) {
  most = std::max(most, axis.most);
  if (most <= 0) most = 1;
  const double step = TickStep(most, 5);
  double to = std::ceil(most / step * 0.9999) * step;
  if (axis.is_share && most <= 1) to = std::min(to, 1.0);
  return {.from = 0, .to = to, .begin = begin, .end = end};
}

// The drawing itself, element by element.
class Picture {
 public:
  // The chart lies right of `left`, `height` high.
  Picture(absl::string_view title, double left, double height)
      : left_(left), bottom_(kTop + height) {
    svg_ = absl::StrFormat(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %1$g %2$g\" width=\"%1$g\" "
        "height=\"%2$g\" role=\"img\">\n<title>%3$s</title>\n%4$s"
        "<rect class=\"page\" width=\"%1$g\" height=\"%2$g\"/>\n",
        kWidth,
        bottom_ + kBelow,
        XmlText(title),
        kStyle);
    Text(20, 26, "start", title, "title");
  }

  double bottom() const { return bottom_; }

  void Add(absl::string_view element) { absl::StrAppend(&svg_, element, "\n"); }

  void Text(double x,
            double y,
            absl::string_view anchor,
            absl::string_view text,
            absl::string_view style = "") {
    Add(absl::StrFormat("<text %sx=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>",
                        style.empty() ? "" : absl::StrCat("class=\"", style, "\" "),
                        x,
                        y,
                        anchor,
                        XmlText(text)));
  }

  void Line(absl::string_view style, double x1, double y1, double x2, double y2) {
    Add(absl::StrFormat("<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>",
                        style,
                        x1,
                        y1,
                        x2,
                        y2));
  }

  // `opacity` of 1 or less.
  void Box(absl::string_view style,
           double x,
           double y,
           double width,
           double height,
           double opacity = 1) {
    Add(absl::StrFormat(
        "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"%s/>",
        style,
        x,
        y,
        width,
        height,
        opacity == 1 ? "" : absl::StrFormat(" fill-opacity=\"%.3f\"", opacity)));
  }

  void LabelBelow(absl::string_view label) {
    Text((left_ + kRight) / 2, bottom_ + 44, "middle", label);
  }
  void LabelBeside(absl::string_view label) {
    Add(absl::StrFormat(
        "<text transform=\"translate(18 %g) rotate(-90)\" text-anchor=\"middle\">%s</text>",
        (kTop + bottom_) / 2,
        XmlText(label)));
  }

  std::string Finish() {
    Add("</svg>");
    return std::move(svg_);
  }

 private:
  const double left_;
  const double bottom_;
  std::string svg_;
};

// --- what can be drawn ---

absl::Status Refuse(absl::string_view title, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("plot '", title, "': ", what));
}

absl::Status CheckNumber(absl::string_view title, absl::string_view where, double value) {
  if (std::isfinite(value) && value >= 0) return absl::OkStatus();
  return Refuse(title, absl::StrCat(where, " has ", value, ", which is negative or not finite"));
}

template <typename Series>
absl::Status CheckSeriesCount(absl::string_view title, const std::vector<Series>& series) {
  if (series.empty()) return Refuse(title, "has no series");
  if (series.size() <= kMostSeries) return absl::OkStatus();
  return Refuse(title,
                absl::StrCat("has ", series.size(), " series; ", kMostSeries, " are told apart"));
}

absl::Status Check(const LineChart& chart) {
  PREGATE_RETURN_IF_ERROR(CheckSeriesCount(chart.title, chart.series));
  PREGATE_RETURN_IF_ERROR(CheckNumber(chart.title, "the x axis", chart.x.most));
  PREGATE_RETURN_IF_ERROR(CheckNumber(chart.title, "the y axis", chart.y.most));
  for (const LineChart::Series& series : chart.series) {
    const std::string where = absl::StrCat("series '", series.name, "'");
    if (series.points.empty()) return Refuse(chart.title, absl::StrCat(where, " has no point"));
    double last_x = 0;
    for (const auto& [x, y] : series.points) {
      PREGATE_RETURN_IF_ERROR(CheckNumber(chart.title, where, x));
      PREGATE_RETURN_IF_ERROR(CheckNumber(chart.title, where, y));
      if (x < last_x) return Refuse(chart.title, absl::StrCat(where, " goes back to x = ", x));
      last_x = x;
    }
  }
  return absl::OkStatus();
}

absl::Status Check(const BarChart& chart) {
  PREGATE_RETURN_IF_ERROR(CheckSeriesCount(chart.title, chart.series));
  PREGATE_RETURN_IF_ERROR(CheckNumber(chart.title, "the axis", chart.value.most));
  const size_t num_categories = chart.categories.size();
  if (num_categories == 0) return Refuse(chart.title, "has no category");
  for (const BarChart::Series& series : chart.series) {
    const std::string where = absl::StrCat("series '", series.name, "'");
    const size_t num_ranges = series.ranges.size();
    if (series.values.size() != num_categories ||
        (num_ranges != 0 && (num_ranges != num_categories || chart.is_stacked))) {
      return Refuse(chart.title,
                    absl::StrCat(where,
                                 " has ",
                                 series.values.size(),
                                 " values and ",
                                 num_ranges,
                                 " ranges for ",
                                 num_categories,
                                 chart.is_stacked ? " stacked" : "",
                                 " categories"));
    }
    for (const double value : series.values) {
      PREGATE_RETURN_IF_ERROR(CheckNumber(chart.title, where, value));
    }
    for (const auto& [least, most] : series.ranges) {
      PREGATE_RETURN_IF_ERROR(CheckNumber(chart.title, where, least));
      PREGATE_RETURN_IF_ERROR(CheckNumber(chart.title, where, most));
    }
  }
  return absl::OkStatus();
}

absl::Status Check(const HeatMap& map) {
  if (map.values.empty() || map.num_columns == 0 || map.values.size() % map.num_columns != 0) {
    return Refuse(map.title,
                  absl::StrCat(map.values.size(),
                               " values are no rows of ",
                               map.num_columns,
                               " columns, at least one of each"));
  }
  for (const double value : map.values) {
    PREGATE_RETURN_IF_ERROR(CheckNumber(map.title, "the map", value));
  }
  return absl::OkStatus();
}

// --- lines ---

void DrawSeries(const LineChart::Series& series,
                const std::string& colour,
                const Scale& x,
                const Scale& y,
                Picture& picture) {
  std::string points;
  for (const auto& [at, value] : series.points) {
    absl::StrAppendFormat(&points, "%s%.1f,%.1f", points.empty() ? "" : " ", x(at), y(value));
  }
  picture.Add(absl::StrFormat("<polyline class=\"line %s%s\" points=\"%s\"/>",
                              colour,
                              series.is_bound ? " bound" : "",
                              points));
  for (const auto& [at, value] : series.points) {
    picture.Add(absl::StrFormat(
        "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>", colour, x(at), y(value)));
  }
}

void DrawAxes(
    const LineChart& chart, double least_x, const Scale& x, const Scale& y, Picture& picture) {
  const double y_step = TickStep(y.to, 5);
  for (int i = 0; i * y_step <= y.to * 1.0001; ++i) {
    picture.Line("grid", kChartLeft, y(i * y_step), kRight, y(i * y_step));
    picture.Text(
        kChartLeft - 8, y(i * y_step) + 4.5, "end", NumberText(i * y_step, chart.y.is_share));
  }
  const double x_step = TickStep(x.to - x.from, 8);
  for (double i = std::ceil(least_x / x_step - 1e-6); i * x_step <= x.to * 1.0001; ++i) {
    picture.Line("frame", x(i * x_step), picture.bottom(), x(i * x_step), picture.bottom() + 5);
    picture.Text(
        x(i * x_step), picture.bottom() + 21, "middle", NumberText(i * x_step, chart.x.is_share));
  }
  picture.Line("frame", kChartLeft, picture.bottom(), kRight, picture.bottom());
  picture.LabelBelow(chart.x.label);
  picture.LabelBeside(chart.y.label);
}

std::string Draw(const LineChart& chart) {
  double least_x = chart.series.front().points.front().first;
  double most_x = chart.x.most;
  double most_y = 0;
  for (const LineChart::Series& series : chart.series) {
    least_x = std::min(least_x, series.points.front().first);
    most_x = std::max(most_x, series.points.back().first);
    for (const auto& [x, y] : series.points) most_y = std::max(most_y, y);
  }
  if (!(least_x < most_x)) least_x = 0;  // a single x
  if (most_x == 0) most_x = 1;
  Picture picture(chart.title, kChartLeft, kChartHeight);
  const Scale x = {.from = least_x, .to = most_x, .begin = kChartLeft, .end = kRight};
  const Scale y = ScaleFromZero(chart.y, most_y, picture.bottom(), kTop);
  DrawAxes(chart, least_x, x, y, picture);
  for (size_t i = 0; i < chart.series.size(); ++i) {
    const LineChart::Series& series = chart.series[i];
    DrawSeries(series, ColourOf(i), x, y, picture);
    const double at = kTop + 8 + kLineHeight * static_cast<double>(i);
    picture.Line(absl::StrCat("line ", ColourOf(i), series.is_bound ? " bound" : ""),
                 kLegend,
                 at,
                 kLegendText - 8,
                 at);
    picture.Text(kLegendText, at + 4.5, "start", series.name);
  }
  return picture.Finish();
}

// --- bars ---

double MostOf(const BarChart& chart) {
  double most = 0;
  for (size_t i = 0; i < chart.categories.size(); ++i) {
    double sum = 0;
    for (const BarChart::Series& series : chart.series) {
      sum = (chart.is_stacked ? sum : 0) + series.values[i];
      most = std::max(most, sum);
      if (!series.ranges.empty()) most = std::max(most, series.ranges[i].second);
    }
  }
  return most;
}

// One category's bars, the first of them at `top`.
void DrawBars(
    const BarChart& chart, size_t category, double top, const Scale& x, Picture& picture) {
  double before = 0;
  for (size_t s = 0; s < chart.series.size(); ++s) {
    const BarChart::Series& series = chart.series[s];
    const double value = series.values[category];
    picture.Box(absl::StrCat("bar ", ColourOf(s)),
                x(before),
                top,
                x(before + value) - x(before),
                kBarHeight);
    if (!series.ranges.empty()) {
      const auto [least, most] = series.ranges[category];
      const double middle = top + kBarHeight / 2;
      picture.Line("range", x(least), middle, x(most), middle);
      for (const double end : {least, most}) {
        picture.Line("range", x(end), middle - 4, x(end), middle + 4);
      }
    }
    if (chart.is_stacked) {
      before += value;
    } else {
      top += kBarHeight;
    }
  }
}

// Where the bars begin: behind the longest of the categories.
double LeftOf(const BarChart& chart) {
  size_t longest = 0;
  for (const std::string& category : chart.categories) {
    longest = std::max(longest, category.size());
  }
  return std::clamp(24 + kCharacterWidth * static_cast<double>(longest), kChartLeft, kRight / 2);
}

std::string Draw(const BarChart& chart) {
  const double bars = chart.is_stacked ? 1 : static_cast<double>(chart.series.size());
  const double group = bars * kBarHeight + kBarGap;
  // The legend has to have its place too.
  const double height = std::max(group * static_cast<double>(chart.categories.size()),
                                 kLineHeight * static_cast<double>(chart.series.size()));
  const double left = LeftOf(chart);
  Picture picture(chart.title, left, height);
  const Scale x = ScaleFromZero(chart.value, MostOf(chart), left, kRight);
  const double step = TickStep(x.to, 5);
  for (int i = 0; i * step <= x.to * 1.0001; ++i) {
    picture.Line("grid", x(i * step), kTop, x(i * step), picture.bottom());
    picture.Text(
        x(i * step), picture.bottom() + 21, "middle", NumberText(i * step, chart.value.is_share));
  }
  for (size_t i = 0; i < chart.categories.size(); ++i) {
    const double top = kTop + group * static_cast<double>(i) + kBarGap / 2;
    picture.Text(left - 8, top + bars * kBarHeight / 2 + 4.5, "end", chart.categories[i]);
    DrawBars(chart, i, top, x, picture);
  }
  picture.Line("frame", left, kTop, left, picture.bottom());
  picture.LabelBelow(chart.value.label);
  for (size_t s = 0; s < chart.series.size(); ++s) {
    const double at = kTop + 1 + kLineHeight * static_cast<double>(s);
    picture.Box(absl::StrCat("bar ", ColourOf(s)), kLegend, at, 14, 14);
    picture.Text(kLegendText, at + 11.5, "start", chart.series[s].name);
  }
  return picture.Finish();
}

// --- heat maps ---

// Columns or rows are counted along the side: a number at each, or at every 2nd, 5th, 10th …
void DrawCounts(size_t count, bool is_row, Picture& picture) {
  const double length = is_row ? picture.bottom() - kTop : kRight - kChartLeft;
  const double cell = length / static_cast<double>(count);
  const double step = std::max(1.0, TickStep(static_cast<double>(count), length / 24));
  for (double i = 0; i < static_cast<double>(count); i += step) {
    const double middle = (i + 0.5) * cell;
    if (is_row) {
      picture.Text(kChartLeft - 8, kTop + middle + 4.5, "end", absl::StrCat(i));
    } else {
      picture.Text(kChartLeft + middle, picture.bottom() + 18, "middle", absl::StrCat(i));
    }
  }
}

void DrawShades(const HeatMap& map, double most, Picture& picture) {
  constexpr double kBegin = kTop + 30;
  constexpr double kHeight = 160;
  constexpr double kStep = kHeight / kShades;
  for (int shade = 1; shade <= kShades; ++shade) {
    picture.Box("heat",
                kLegend,
                kBegin + kStep * (kShades - shade),
                18,
                kStep,
                static_cast<double>(shade) / kShades);
  }
  picture.Box("frame", kLegend, kBegin, 18, kHeight);
  picture.Text(kLegend, kTop + 12, "start", map.value_label);
  picture.Text(kLegend + 26, kBegin + 9, "start", NumberText(most, map.is_share));
  picture.Text(kLegend + 26, kBegin + kHeight, "start", NumberText(0, map.is_share));
}

std::string Draw(const HeatMap& map) {
  const size_t num_rows = map.values.size() / map.num_columns;
  const double most = *std::max_element(map.values.begin(), map.values.end());
  const auto shade_of = [&](size_t cell) {
    const double share = most > 0 ? map.values[cell] / most : 0;
    return static_cast<size_t>(std::ceil(share * kShades * 0.9999));
  };
  // One path for each shade, in cells, and neighbours of one shade together: a cell takes a few
  // bytes.
  std::array<std::string, kShades + 1> cells;
  for (size_t row = 0; row < num_rows; ++row) {
    for (size_t column = 0; column < map.num_columns;) {
      const size_t begin = column;
      const size_t shade = shade_of(row * map.num_columns + begin);
      do {
        ++column;
      } while (column < map.num_columns && shade_of(row * map.num_columns + column) == shade);
      const size_t width = column - begin;
      absl::StrAppendFormat(&cells[shade], "M%d %dh%dv1h-%dz", begin, row, width, width);
    }
  }
  Picture picture(map.title, kChartLeft, kChartHeight);
  picture.Add(absl::StrFormat("<g transform=\"translate(%g %g) scale(%.4f %.4f)\">",
                              kChartLeft,
                              kTop,
                              (kRight - kChartLeft) / static_cast<double>(map.num_columns),
                              kChartHeight / static_cast<double>(num_rows)));
  for (size_t shade = 1; shade < cells.size(); ++shade) {
    if (cells[shade].empty()) continue;
    picture.Add(absl::StrFormat("<path class=\"heat\" fill-opacity=\"%.3f\" d=\"%s\"/>",
                                static_cast<double>(shade) / kShades,
                                cells[shade]));
  }
  picture.Add("</g>");
  picture.Box("frame", kChartLeft, kTop, kRight - kChartLeft, kChartHeight);
  DrawCounts(num_rows, true, picture);
  DrawCounts(map.num_columns, false, picture);
  DrawShades(map, most, picture);
  picture.LabelBelow(map.column_label);
  picture.LabelBeside(map.row_label);
  return picture.Finish();
}

template <typename Chart>
absl::StatusOr<std::string> CheckAndDraw(const Chart& chart) {
  PREGATE_RETURN_IF_ERROR(Check(chart));
  return Draw(chart);
}

template <typename Chart>
absl::Status Write(const std::string& folder, absl::string_view name, const Chart& chart) {
  PREGATE_ASSIGN_OR_RETURN(const std::string svg, CheckAndDraw(chart));
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("cannot make the folder ", folder, ": ", error.message()));
  }
  return WriteWholeFile(absl::StrCat(folder, "/", name, ".svg"), svg);
}

}  // namespace

absl::StatusOr<std::string> ToSvg(const LineChart& chart) { return CheckAndDraw(chart); }
absl::StatusOr<std::string> ToSvg(const BarChart& chart) { return CheckAndDraw(chart); }
absl::StatusOr<std::string> ToSvg(const HeatMap& map) { return CheckAndDraw(map); }

absl::Status WritePlot(const std::string& folder, absl::string_view name, const LineChart& chart) {
  return Write(folder, name, chart);
}
absl::Status WritePlot(const std::string& folder, absl::string_view name, const BarChart& chart) {
  return Write(folder, name, chart);
}
absl::Status WritePlot(const std::string& folder, absl::string_view name, const HeatMap& map) {
  return Write(folder, name, map);
}

}  // namespace pregate
