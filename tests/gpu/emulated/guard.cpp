// What torch's own code asks about a device before and between operations: enough for autograd, with a thread for cuda:0.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <cstring>

namespace {
bool present = false;

struct Guard final : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> {
  c10::Device getDevice() const override { return c10::Device(c10::DeviceType::CUDA, 0); }
  c10::Device exchangeDevice(c10::Device) const override { return getDevice(); }
  c10::Stream getStream(c10::Device) const noexcept override { return stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return stream(); }
  c10::Stream stream() const { return c10::Stream(c10::Stream::DEFAULT, getDevice()); }
};

struct Hooks final : at::CUDAHooksInterface {
  void init() const override {}
  bool hasCUDA() const override { return present; }
  bool isBuilt() const override { return present; }
  bool isAvailable() const override { return present; }
  bool hasPrimaryContext(at::DeviceIndex) const override { return present; }
  at::DeviceIndex deviceCount() const override { return present; }
  at::DeviceIndex getCurrentDevice() const override { return 0; }
  at::DeviceIndex current_device() const override { return 0; }
  int getNumGPUs() const override { return present; }
};
}  // namespace

C10_REGISTER_GUARD_IMPL(CUDA, Guard)

extern "C" void deadrelu_present(int now) {
  // Torch has made the hooks of a build without CUDA by now, and keeps them: they hold nothing but their virtual table.
  static Hooks hooks;
  static_assert(sizeof(hooks) == sizeof(void*));
  std::memcpy(const_cast<void*>(static_cast<const void*>(&at::detail::getCUDAHooks())), &hooks, sizeof(hooks));
  present = now;
}
