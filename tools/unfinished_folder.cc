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

absl::StatusOr<UnfinishedFolder> UnfinishedFolder::Create(const std::string& path,
                                                          const std::vector<std::string>& keep) {
  const std::string whole = fs::path(absl::StrCat(path, "/")).parent_path().string();
  std::error_code error;
  if (fs::exists(whole, error) && !fs::is_empty(whole, error)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, error ? " is not a folder" : " exists and is not empty"));
  }
  std::string partial = absl::StrCat(whole, ".partial");
  PREGATE_ASSIGN_OR_RETURN(FileDescriptor lock, MakeLocked(partial));
  std::vector<fs::path> left;
  for (const fs::directory_entry& entry : fs::directory_iterator(partial, error)) {
    const std::string name = entry.path().filename().string();
    if (std::find(keep.begin(), keep.end(), name) == keep.end()) left.push_back(entry.path());
  }
  for (const fs::path& entry : left) {
    if (!error) fs::remove_all(entry, error);
  }
  if (error) return FileError(error, absl::StrCat("cannot empty ", partial));
  return UnfinishedFolder(whole, std::move(partial), std::move(lock));
}

UnfinishedFolder::UnfinishedFolder(std::string path, std::string partial, FileDescriptor lock)
    : path_(std::move(path)), partial_(std::move(partial)), lock_(std::move(lock)) {}

absl::Status UnfinishedFolder::Finish() {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(partial_, error)) {
    PREGATE_RETURN_IF_ERROR(SyncFile(entry.path().string()));
  }
  if (error) return FileError(error, absl::StrCat("cannot read ", partial_));
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
