// A folder that is filled under another name and appears under its own when it is whole.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/storage/file_io.h"

namespace pregate {

// The names of all that is in a folder, in alphabetical order. The error names the folder.
absl::StatusOr<std::vector<std::string>> NamesIn(const std::string& folder);

// PATH.partial until Finish renames it to PATH: whoever looks at PATH finds a whole folder or none,
// also after a kill at any moment. Move-only. Used by one thread.
class UnfinishedFolder {
 public:
  // Makes PATH.partial, or takes over what a killed program left there, of which the files named in
  // `keep` stay. FAILED_PRECONDITION: PATH is there and no empty folder, or another program is at
  // work on it.
  static absl::StatusOr<UnfinishedFolder> Create(const std::string& path,
                                                 const std::vector<std::string>& keep = {});

  const std::string& path() const { return partial_; }  // where to put files until Finish
  std::string operator/(const std::string& name) const { return partial_ + "/" + name; }

  // Once this is OK the folder and its files survive a power cut.
  absl::Status Finish();

  // Removes it with all it holds.
  void Discard();

 private:
  UnfinishedFolder(std::string path, std::string partial, FileDescriptor lock);

  std::string path_;
  std::string partial_;
  FileDescriptor lock_;  // on the folder, for as long as this lives
};

}  // namespace pregate
