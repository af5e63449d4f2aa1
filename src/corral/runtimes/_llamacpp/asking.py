"""A process that tells which GPUs llama.cpp finds, and ends."""

from __future__ import annotations

from corral.kit import child


def main() -> None:
    """Load the library and say what it sees."""
    parent = child.attach()
    import xllamacpp

    kinds = xllamacpp.ggml_backend_dev_type
    gpus = (kinds.GGML_BACKEND_DEVICE_TYPE_GPU, kinds.GGML_BACKEND_DEVICE_TYPE_IGPU)
    parent.ready(gpus=[item["name"] for item in xllamacpp.get_device_info() if item["type"] in gpus])
    child.leave(0)


if __name__ == "__main__":
    main()
