#include "tools/unfinished_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/status_macros.h"

namespace pregate {
namespace {

namespace fs = std::filesystem;

absl::Status FileError(const std::error_code& error, const std::string& what) {
  return ErrnoStatus(error.value(), what);
}

// Makes the folder where it is not there, and locks it against other programs.
absl::StatusOr<FileDescriptor> MakeLocked(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return FileError(error, absl::StrCat("cannot create ", folder));
  PREGATE_ASSIGN_OR_RETURN(FileDescriptor lock,
                           FileDescriptor::Open(folder, O_RDONLY | O_DIRECTORY));
  struct stat locked;
  struct stat named;
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, absl::StrCat("cannot lock ", folder));
  } else if (fstat(lock.get(), &locked) == 0 && stat(folder.c_str(), &named) == 0 &&
             locked.st_ino == named.st_ino && locked.st_dev == named.st_dev) {
    return lock;
  }  // else: it was finished, and so renamed, before it could be locked
  return absl::FailedPreconditionError(absl::StrCat("another program is at work on ", folder));
}

absl::Status SyncFile(const std::string& path) {
  PREGATE_ASSIGN_OR_RETURN(const FileDescriptor file, FileDescriptor::Open(path, O_RDONLY));
  if (fsync(file.get()) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat("cannot sync ", path));
}

}  // namespace

absl::StatusOr<std::vector<std::string>> NamesIn(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error) return FileError(error, absl::StrCat("cannot read ", folder));
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<UnfinishedFolder> UnfinishedFolder::Create(const std::string& path,
                                                          const std::vector<std::string>& keep) {
  const std::string whole = fs::path(absl::StrCat(path, "/")).parent_path().string();
  std::error_code error;
  if (fs::exists(whole, error)) {
    const bool is_folder = fs::is_directory(whole, error);
    if (!is_folder || !fs::is_empty(whole, error)) {
      return absl::FailedPreconditionError(
          absl::StrCat(path, is_folder ? " exists and is not empty" : " is not a folder"));
    }
  }
  std::string partial = absl::StrCat(whole, ".partial");
  PREGATE_ASSIGN_OR_RETURN(FileDescriptor lock, MakeLocked(partial));
  PREGATE_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(partial));
  for (const std::string& name : names) {
    if (std::find(keep.begin(), keep.end(), name) != keep.end()) continue;
    fs::remove_all(absl::StrCat(partial, "/", name), error);
    if (error) return FileError(error, absl::StrCat("cannot remove ", name, " of ", partial));
  }
  return UnfinishedFolder(whole, std::move(partial), std::move(lock));
}

UnfinishedFolder::UnfinishedFolder(std::string path, std::string partial, FileDescriptor lock)
    : path_(std::move(path)), partial_(std::move(partial)), lock_(std::move(lock)) {}

absl::Status UnfinishedFolder::Finish() {
  std::error_code error;
  PREGATE_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(partial_));
  for (const std::string& name : names) PREGATE_RETURN_IF_ERROR(SyncFile(*this / name));
  PREGATE_RETURN_IF_ERROR(SyncFile(partial_));
  fs::rename(partial_, path_, error);
  if (error) return FileError(error, absl::StrCat("cannot rename ", partial_, " to ", path_));
  return SyncFolderOf(path_);
}

void UnfinishedFolder::Discard() {
  std::error_code ignored;
  fs::remove_all(partial_, ignored);
}

}  // namespace pregate
