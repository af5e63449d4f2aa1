"""NVIDIA's library, played: devices are dictionaries of what they tell; what one does not hold is an error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class Nvml:
    """NVIDIA's library as it behaves: errors are exceptions of its own, and each device may lack any fact.

    A device is a dictionary; `broken` names the error that the library begins with, or a number as NVML has it that
    a device's memory answers with, under the key `error`.
    """

    NVML_TEMPERATURE_GPU = 0

    def __init__(self, devices: list[dict[str, Any]], broken: str | None = None) -> None:
        self.NVMLError = type("NVMLError", (Exception,), {"value": 999})
        self.NVMLError_LibraryNotFound = type("LibraryNotFound", (self.NVMLError,), {})
        self.NVMLError_DriverNotLoaded = type("DriverNotLoaded", (self.NVMLError,), {})
        self.devices = devices
        self.broken = broken
        self.sessions = 0

    def _init(self) -> None:
        if self.broken is not None:
            raise getattr(self, self.broken)
        self.sessions += 1

    def _shutdown(self) -> None:
        self.sessions -= 1

    def _count(self) -> int:
        if not self.devices:
            raise self.NVMLError
        return len(self.devices)

    def _handle(self, index: int) -> dict[str, Any]:
        if not self.devices[index]:
            raise self.NVMLError("GPU is lost")
        return self.devices[index]

    def _memory(self, device: dict[str, Any]) -> Any:
        if "error" in device:
            error = self.NVMLError("GPU is lost")
            error.value = device["error"]
            raise error
        return SimpleNamespace(**self._tell(device, "memory"))

    def _rates(self, device: dict[str, Any]) -> Any:
        return SimpleNamespace(gpu=self._tell(device, "usage"))

    def _temperature(self, device: dict[str, Any], _: int) -> Any:
        return self._tell(device, "temperature")

    def _part(self, device: dict[str, Any], index: int) -> Any:
        parts = self._tell(device, "parts")
        if not parts[index]:
            raise self.NVMLError
        return parts[index]

    def _driver(self) -> Any:
        return self._tell(self.devices[0], "driver")

    def _cuda(self) -> Any:
        return self._tell(self.devices[0], "cuda")

    def __getattr__(self, name: str) -> Any:
        calls = {
            "nvmlInit": self._init,
            "nvmlShutdown": self._shutdown,
            "nvmlDeviceGetCount": self._count,
            "nvmlDeviceGetHandleByIndex": self._handle,
            "nvmlDeviceGetMemoryInfo": self._memory,
            "nvmlDeviceGetUtilizationRates": self._rates,
            "nvmlDeviceGetTemperatureV": self._temperature,
            "nvmlDeviceGetMigDeviceHandleByIndex": self._part,
            "nvmlSystemGetDriverVersion": self._driver,
            "nvmlSystemGetCudaDriverVersion_v2": self._cuda,
        }
        facts = {
            "nvmlDeviceGetName": "name",
            "nvmlDeviceGetUUID": "uuid",
            "nvmlDeviceGetPowerUsage": "power",
            "nvmlDeviceGetEnforcedPowerLimit": "power_limit",
            "nvmlDeviceGetCudaComputeCapability": "capability",
            "nvmlDeviceGetMigMode": "mig",
            "nvmlDeviceGetMaxMigDeviceCount": "most_parts",
            "nvmlDeviceGetComputeRunningProcesses": "computing",
            "nvmlDeviceGetGraphicsRunningProcesses": "drawing",
        }
        if name in calls:
            return calls[name]
        if name not in facts:
            raise AttributeError(name)
        return lambda device: self._tell(device, facts[name])

    def _tell(self, device: dict[str, Any], key: str) -> Any:
        if key not in device:
            raise self.NVMLError
        return device[key]
