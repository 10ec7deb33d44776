// Pictures of measurements, as SVG: lines, bars and heat maps that can be read on light pages and
// on dark ones, and need nothing but a browser.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pregate {

struct PlotAxis {
  std::string label;      // with the unit
  bool is_share = false;  // 0.25 is written as 25 %
  double most = 0;        // where the axis ends at least
};

struct LineChart {
  struct Series {
    std::string name;
    std::vector<std::pair<double, double>> points;  // x not descending
    bool is_bound = false;                          // drawn dashed: a limit, no measurement
  };
  std::string title;
  PlotAxis x;  // from the least x on
  PlotAxis y;  // from 0 on
  std::vector<Series> series;
};

// Bars lie: each category is a row, named on the left.
struct BarChart {
  struct Series {
    std::string name;
    std::vector<double> values;                     // [categories]
    std::vector<std::pair<double, double>> ranges;  // [categories] least and most; or none
  };
  std::string title;
  PlotAxis value;  // from 0 on
  std::vector<std::string> categories;
  std::vector<Series> series;
  bool is_stacked = false;  // without ranges then; else the series of a category stand side by side
};

struct HeatMap {
  std::string title;
  std::string row_label;  // rows from top to bottom, columns from left to right, both from 0 on
  std::string column_label;
  std::string value_label;
  size_t num_columns = 0;
  std::vector<double> values;  // [rows, num_columns]; 0 is the page's colour
  bool is_share = false;       // 0.25 is written as 25 %
};

// A picture. Texts may be any bytes: what is no character of XML becomes U+FFFD. INVALID_ARGUMENT
// names the title and what cannot be drawn: nothing at all, a number that is negative or not
// finite, lists that do not belong together, more than 8 series.
absl::StatusOr<std::string> ToSvg(const LineChart& chart);
absl::StatusOr<std::string> ToSvg(const BarChart& chart);
absl::StatusOr<std::string> ToSvg(const HeatMap& map);

// Writes the picture to FOLDER/NAME.svg; the folder is made if it is not there. The errors of ToSvg
// and of the files.
absl::Status WritePlot(const std::string& folder, absl::string_view name, const LineChart& chart);
absl::Status WritePlot(const std::string& folder, absl::string_view name, const BarChart& chart);
absl::Status WritePlot(const std::string& folder, absl::string_view name, const HeatMap& map);

}  // namespace pregate
