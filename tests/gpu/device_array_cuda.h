// Arrays in device memory, for tests and measurements.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>
#include <vector>

#include "core/base/check.h"

namespace pregate {

inline void CheckCuda(cudaError_t error) {
  PREGATE_CHECK(error == cudaSuccess, "CUDA: ", cudaGetErrorString(error));
}

// Whether there is a device to run on.
inline bool HasCudaDevice() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

// Move-only. What is not copied into it is all ones in every bit: NaN as float32 and as bfloat16.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t size) : size_(size) {
    CheckCuda(cudaMalloc(&data_, size_ * sizeof(T)));
    Poison();
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) { Write(values); }
  DeviceArray(DeviceArray&& other) noexcept
      : size_(other.size_), data_(std::exchange(other.data_, nullptr)) {}
  DeviceArray& operator=(DeviceArray&&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  void Poison() { CheckCuda(cudaMemset(data_, 0xff, size_ * sizeof(T))); }
  void Write(const std::vector<T>& values) {
    PREGATE_CHECK(values.size() == size_);
    CheckCuda(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  // Waits for the device.
  std::vector<T> Read() const {
    CheckCuda(cudaDeviceSynchronize());
    std::vector<T> values(size_);
    CheckCuda(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }
  T* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  size_t size_;
  T* data_ = nullptr;
};

}  // namespace pregate
