"""Where a network can run: the CPU alone, or torch."""

from thinfilm_codecs.errors import MissingDevice

DEVICES = ("cpu", "cuda", "torch-cpu")


def check_device(device: str, codec_id: str) -> None:
    """Raise MissingDevice where the machine has no such device, or no torch for it."""
    if device not in DEVICES:
        raise MissingDevice(f"The {codec_id} codec runs on {', '.join(DEVICES)}, not on {device!r}.")
    if device == "cpu":
        return
    try:
        import torch
    except ImportError as error:
        raise MissingDevice(
            f"The device {device!r} needs torch, which is not installed; the extra thinfilm[gpu] brings it."
        ) from error
    if device == "cuda" and not torch.cuda.is_available():
        raise MissingDevice("The device 'cuda' needs an NVIDIA GPU with its driver; torch finds none here.")
